// SPDX-License-Identifier: LGPL-2.1-or-later
#include "text/jinja/template.h"

#include <algorithm>
#include <vector>

#include "text/jinja/parser.h"

namespace vlm::jinja {
namespace {

// Enough for hundreds of turns, and done within a second.
constexpr size_t kMaxSteps = size_t{1} << 23;

using Kind = Expression::Kind;

struct Variable {
  Json value;
  bool is_namespace = false;  // its members may be set
};

/// Names that the reference's environment knows, too.
bool is_global(const std::string& name) {
  static constexpr const char* kGlobals[] = {"range",           "dict",        "lipsum",
                                             "cycler",          "joiner",      "namespace",
                                             "raise_exception", "strftime_now"};
  return std::find(std::begin(kGlobals), std::end(kGlobals), name) != std::end(kGlobals);
}

/// How much a copy of `value` costs.
size_t weight(const Json& value) {
  if (value.is_string()) return 1 + value.get_ref<const std::string&>().size() / 16;
  size_t sum = 1;
  if (value.is_structured()) {
    for (const Json& entry : value) sum += weight(entry);
  }
  return sum;
}

/// Whether left name right, for a comparison's name.
bool holds(const std::string& name, const Json& left, const Json& right, const Place& place) {
  if (name == "==" || name == "!=") return equal(left, right) == (name == "==");
  if (name == "in" || name == "not in") return contains(right, left, place) == (name == "in");
  const bool reversed = name == ">" || name == "<=";
  const bool result = reversed ? less(right, left, place) : less(left, right, place);
  return name.ends_with('=') ? !result : result;
}

class Renderer {
 public:
  Renderer(const std::string& file, const std::map<std::string, Json>& variables) : file_(file) {
    scopes_.emplace_back();
    for (const auto& [name, value] : variables) scopes_[0][name] = {value};
  }

  std::string run(const std::vector<Node>& nodes) {
    run_all(nodes);
    return std::move(output_);
  }

 private:
  using Scope = std::map<std::string, Variable>;
  enum class Flow { kOn, kBreak, kContinue };

  Place at(size_t line) const { return {file_, line}; }

  void charge(size_t cost, size_t line) {
    if (cost > steps_left_) at(line).fail("it takes too many steps");
    steps_left_ -= cost;
  }

  Variable* find(const std::string& name) {
    for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope) {
      const auto found = scope->find(name);
      if (found != scope->end()) return &found->second;
    }
    return nullptr;
  }

  // ---- Statements

  Flow run_all(const std::vector<Node>& nodes) {
    for (const Node& node : nodes) {
      charge(1, node.line);
      const Flow flow = run_one(node);
      if (flow != Flow::kOn) return flow;
    }
    return Flow::kOn;
  }

  /// Variables that are set inside are gone behind it.
  Flow run_scope(const std::vector<Node>& nodes) {
    scopes_.emplace_back();
    const Flow flow = run_all(nodes);
    scopes_.pop_back();
    return flow;
  }

  Flow run_one(const Node& node) {
    switch (node.kind) {
      case Node::Kind::kText:
        print(node.text, node.line);
        return Flow::kOn;
      case Node::Kind::kPrint:
        print(printed(value_of(*node.value), at(node.value->line)), node.line);
        return Flow::kOn;
      case Node::Kind::kIf:
        for (const Branch& branch : node.branches) {
          if (truth(value_of(*branch.condition))) return run_all(branch.body);
        }
        return run_all(node.otherwise);
      case Node::Kind::kFor:
        return run_for(node);
      case Node::Kind::kSet:
        set(node);
        return Flow::kOn;
      case Node::Kind::kScope:
        return run_scope(node.branches[0].body);
      case Node::Kind::kBreak:
        return Flow::kBreak;
      case Node::Kind::kContinue:
        break;
    }
    return Flow::kContinue;
  }

  void print(const std::string& text, size_t line) {
    charge(text.size() / 16, line);
    if (output_.size() + text.size() > kMaxText) at(line).fail("it prints too much");
    output_ += text;
  }

  void set(const Node& node) {
    Json value = value_of(*node.value);
    const bool makes_namespace =
        node.value->kind == Kind::kFunction && node.value->name == "namespace";
    if (node.attribute.empty()) {
      scopes_.back()[node.text] = {std::move(value), makes_namespace};
      return;
    }
    Variable* variable = find(node.text);
    if (!variable || !variable->is_namespace || makes_namespace) {
      at(node.line).fail("{% set " + node.text + "." + node.attribute +
                         " %} is supported for a variable that holds a namespace only");
    }
    variable->value[node.attribute] = std::move(value);
  }

  Flow run_for(const Node& node) {
    const Json all = elements(value_of(*node.value), at(node.line));
    Json chosen = Json::array();
    for (const Json& element : all) {
      charge(weight(element), node.line);
      scopes_.push_back({{node.text, {element}}});
      if (!node.filter || truth(value_of(*node.filter))) chosen.push_back(element);
      scopes_.pop_back();
    }
    if (chosen.empty()) return run_scope(node.otherwise);
    for (size_t i = 0; i < chosen.size(); ++i) {
      const size_t size = chosen.size();
      const Json loop = {{"index", i + 1},       {"index0", i},
                         {"revindex", size - i}, {"revindex0", size - i - 1},
                         {"first", i == 0},      {"last", i + 1 == size},
                         {"length", size}};
      scopes_.push_back({{"loop", {loop}}, {node.text, {chosen[i]}}});
      const Flow flow = run_all(node.branches[0].body);
      scopes_.pop_back();
      if (flow == Flow::kBreak) break;
    }
    return Flow::kOn;
  }

  // ---- Expressions

  Json value_of(const Expression& expression) {
    Json value = evaluate(expression);
    charge(weight(value), expression.line);
    return value;
  }

  Json value_of(const ExpressionPtr& expression) {
    return expression ? value_of(*expression) : Json(nullptr);
  }

  Json evaluate(const Expression& e) {
    const Place place = at(e.line);
    const auto operand = [&](size_t index) { return value_of(e.operands[index]); };
    switch (e.kind) {
      case Kind::kLiteral:
        return e.value;
      case Kind::kName:
        return variable(e);
      case Kind::kList: {
        Json list = Json::array();
        for (const ExpressionPtr& part : e.operands) list.push_back(value_of(part));
        return list;
      }
      case Kind::kAttribute:
        return attribute(e, operand(0));
      case Kind::kItem: {
        const Json value = operand(0);
        return item(value, operand(1), place);
      }
      case Kind::kSlice: {
        const Json value = operand(0), start = operand(1), stop = operand(2);
        return slice(value, start, stop, operand(3), place);
      }
      case Kind::kFunction:
        return function(e);
      case Kind::kMethod:
        return call_method(call(e, place));
      case Kind::kFilter:
        return call_filter(call(e, place));
      case Kind::kTest:
        return call_test(call(e, place));
      case Kind::kNot:
        return !truth(operand(0));
      case Kind::kNegative:
        return operation("-", 0, operand(0), place);
      case Kind::kAnd:
      case Kind::kOr: {
        Json left = operand(0);
        return truth(left) == (e.kind == Kind::kOr) ? left : operand(1);
      }
      case Kind::kOperation: {
        const Json left = operand(0);
        return operation(e.name, left, operand(1), place);
      }
      case Kind::kComparison:
        return compare(e);
      case Kind::kConditional:
        break;
    }
    if (truth(operand(0))) return operand(1);
    return e.operands[2] ? operand(2) : undefined();
  }

  Json variable(const Expression& e) {
    const Variable* found = find(e.name);
    if (!found && is_global(e.name)) at(e.line).fail(e.name + " as a value is not supported");
    if (!found) return undefined();
    charge(weight(found->value), e.line);
    return found->value;
  }

  Json attribute(const Expression& e, const Json& value) {
    Json found =
        value.is_object() || value.is_discarded() ? item(value, e.name, at(e.line)) : undefined();
    const bool of_loop = e.operands[0]->kind == Kind::kName && e.operands[0]->name == "loop";
    static constexpr const char* kMethods[] = {"items", "keys", "values", "get", "pop", "update"};
    const bool method = !value.is_object() || std::find(std::begin(kMethods), std::end(kMethods),
                                                        e.name) != std::end(kMethods);
    if (found.is_discarded() && (of_loop || method)) {
      at(e.line).fail("the attribute " + e.name + " is not supported here");
    }
    return found;
  }

  bool compare(const Expression& e) {
    Json left = value_of(e.operands[0]);
    for (size_t i = 0; i < e.value.size(); ++i) {
      Json right = value_of(e.operands[i + 1]);
      if (!holds(e.value[i].get_ref<const std::string&>(), left, right, at(e.line))) return false;
      left = std::move(right);
    }
    return true;
  }

  Call call(const Expression& e, const Place& place) {
    Call made{e.name, {}, {}, place};
    for (const ExpressionPtr& part : e.operands) made.values.push_back(value_of(part));
    for (const auto& [name, part] : e.named) made.named[name] = value_of(part);
    return made;
  }

  Json function(const Expression& e) {
    const Place place = at(e.line);
    const Call made = call(e, place);
    if (find(e.name)) place.fail("a call of the variable " + e.name + " is not supported");
    if (e.name == "namespace" && made.values.empty()) return Json(made.named);
    if (e.name == "raise_exception" && made.values.size() == 1) {
      throw Failure(ErrorKind::kInvalidArgument,
                    file_ + ": the chat template refuses this conversation: " +
                        printed(made.values[0], place));
    }
    if (e.name == "range" && made.values.size() == 1 && made.values[0].is_number_integer()) {
      const int64_t size = std::max<int64_t>(0, made.values[0].get<int64_t>());
      charge(static_cast<size_t>(size), e.line);
      Json numbers = Json::array();
      for (int64_t i = 0; i < size; ++i) numbers.push_back(i);
      return numbers;
    }
    place.fail("the call of " + e.name + " is not supported");
  }

  const std::string& file_;
  std::vector<Scope> scopes_;
  std::string output_;
  size_t steps_left_ = kMaxSteps;
};

}  // namespace

std::string render(std::string_view source, const std::string& file,
                   const std::map<std::string, Json>& variables) {
  return Renderer(file, variables).run(parse(source, file));
}

}  // namespace vlm::jinja
