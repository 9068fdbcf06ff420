// SPDX-License-Identifier: LGPL-2.1-or-later
#include "loader/pickle.h"

#include <algorithm>
#include <deque>
#include <iterator>
#include <unordered_map>
#include <utility>

#include "base/failure.h"
#include "loader/tensor_file.h"

namespace vlm {
namespace {

constexpr size_t kMaxDimensions = 16;

enum class Global { kOrderedDict, kRebuildTensor, kRebuildParameter, kStorageType };

/// A Python name that a state dict needs.
struct KnownGlobal {
  std::string_view module, name;
  Global what;
  const char* dtype = nullptr;  ///< of a storage type
};

constexpr KnownGlobal kGlobals[] = {
    {"collections", "OrderedDict", Global::kOrderedDict},
    {"torch._utils", "_rebuild_tensor_v2", Global::kRebuildTensor},
    {"torch._utils", "_rebuild_parameter", Global::kRebuildParameter},
    {"torch", "FloatStorage", Global::kStorageType, "F32"},
    {"torch", "HalfStorage", Global::kStorageType, "F16"},
    {"torch", "BFloat16Storage", Global::kStorageType, "BF16"},
    {"torch", "DoubleStorage", Global::kStorageType, "F64"},
    {"torch", "LongStorage", Global::kStorageType, "I64"},
    {"torch", "IntStorage", Global::kStorageType, "I32"},
    {"torch", "ShortStorage", Global::kStorageType, "I16"},
    {"torch", "CharStorage", Global::kStorageType, "I8"},
    {"torch", "ByteStorage", Global::kStorageType, "U8"},
    {"torch", "BoolStorage", Global::kStorageType, "BOOL"},
};

/// Index of a value in the interpreter's list. Values refer to each other by these alone, so that
/// neither nesting nor cycles need recursion.
using Ref = uint32_t;

struct Value {
  enum class Kind {
    kNone,
    kBool,
    kNumber,
    kText,
    kTuple,
    kList,
    kDict,
    kGlobal,
    kStorage,
    kTensor
  };
  Kind kind = Kind::kNone;
  int64_t number = 0;      ///< kNumber, kBool; index of kGlobal, kStorage, kTensor
  std::string_view text;   ///< kText
  std::vector<Ref> items;  ///< kTuple, kList; kDict: name and value in turn
};

using Kind = Value::Kind;

struct Storage {
  const char* dtype;
  std::string_view key;
  int64_t elements;
};

class Interpreter {
 public:
  Interpreter(std::string_view pickle, const std::string& file) : rest_(pickle), file_(file) {}

  std::vector<PickledTensor> run() {
    while (!step()) {
    }
    const Value& dict = values_[pop()];
    if (dict.kind != Kind::kDict) fail("holds no state dict, a table of names and tensors");
    std::vector<PickledTensor> result;
    for (size_t i = 0; i + 1 < dict.items.size(); i += 2) {
      const Value& name = values_[dict.items[i]];
      const Value& value = values_[dict.items[i + 1]];
      if (name.kind != Kind::kText) fail("holds no state dict: a name in it is no text");
      if (value.kind != Kind::kTensor) {
        fail("holds no state dict: its entry " + shown_name(name.text) + " is no tensor");
      }
      result.push_back(tensors_[static_cast<size_t>(value.number)]);
      result.back().name = name.text;
    }
    return result;
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw Failure(ErrorKind::kInvalidModel, file_ + ": " + what);
  }
  [[noreturn]] void broken() const { fail("its pickle is damaged; fetch the file again"); }

  // ---- The pickle's bytes

  std::string_view bytes(size_t count) {
    if (count > rest_.size()) broken();
    const std::string_view taken = rest_.substr(0, count);
    rest_.remove_prefix(count);
    return taken;
  }
  uint64_t unsigned_number(size_t count) {
    const std::string_view taken = bytes(count);
    uint64_t value = 0;
    for (size_t i = count; i > 0; --i) value = value << 8 | static_cast<uint8_t>(taken[i - 1]);
    return value;
  }
  int64_t signed_number(size_t count) {
    if (count == 0) return 0;
    if (count > 8) fail("its pickle holds a number beyond 64 bits");
    const auto unused = static_cast<int>(8 * (8 - count));
    return static_cast<int64_t>(unsigned_number(count) << unused) >> unused;
  }
  std::string_view line() {
    const size_t end = rest_.find('\n');
    if (end == std::string_view::npos) broken();
    const std::string_view taken = bytes(end);
    bytes(1);
    return taken;
  }

  // ---- Stack and memo

  void push(Ref ref) { stack_.push_back(ref); }
  void push(Value value) {
    values_.push_back(std::move(value));
    push(static_cast<Ref>(values_.size() - 1));
  }
  void push(Kind kind, int64_t number = 0) { push(Value{kind, number, {}, {}}); }
  void push_text(std::string_view text) { push(Value{Kind::kText, 0, text, {}}); }

  /// The stack's top; what lies below the last mark is out of reach.
  Ref top() const {
    if (stack_.size() <= (marks_.empty() ? 0 : marks_.back())) broken();
    return stack_.back();
  }
  Ref pop() {
    const Ref ref = top();
    stack_.pop_back();
    return ref;
  }
  std::vector<Ref> pop_to_mark() {
    if (marks_.empty()) broken();
    const auto begin = stack_.begin() + static_cast<std::ptrdiff_t>(marks_.back());
    std::vector<Ref> items(begin, stack_.end());
    stack_.erase(begin, stack_.end());
    marks_.pop_back();
    return items;
  }
  void push_tuple(std::vector<Ref> items) { push(Value{Kind::kTuple, 0, {}, std::move(items)}); }
  void push_tuple_of(size_t count) {
    std::vector<Ref> items(count);
    for (size_t i = count; i > 0; --i) items[i - 1] = pop();
    push_tuple(std::move(items));
  }
  void add_to(Kind kind, const std::vector<Ref>& more) {
    Value& value = values_[top()];
    if (value.kind != kind || (kind == Kind::kDict && more.size() % 2 != 0)) broken();
    value.items.insert(value.items.end(), more.begin(), more.end());
  }
  void recall(uint64_t key) {
    const auto found = memo_.find(key);
    if (found == memo_.end()) broken();
    push(found->second);
  }

  // ---- What a state dict is made of

  const Value& item(const Value& tuple, size_t index, Kind kind) const {
    if (index >= tuple.items.size() || values_[tuple.items[index]].kind != kind) broken();
    return values_[tuple.items[index]];
  }

  void push_global(std::string_view module, std::string_view name) {
    const auto found = std::find_if(
        std::begin(kGlobals), std::end(kGlobals),
        [&](const KnownGlobal& known) { return known.module == module && known.name == name; });
    if (found == std::end(kGlobals)) {
      throw Failure(ErrorKind::kUnsupported,
                    file_ + ": its pickle asks for " + shown_name(module) + "." + shown_name(name) +
                        ", which a file of tensors has no need of; nothing of it was run, save the "
                        "tensors alone with torch.save or as safetensors");
    }
    push(Kind::kGlobal, found - std::begin(kGlobals));
  }

  /// ("storage", type, key, device, elements) → the storage.
  void push_storage(const Value& id) {
    const Value& type = item(id, 1, Kind::kGlobal);
    const KnownGlobal& global = kGlobals[type.number];
    if (item(id, 0, Kind::kText).text != "storage" || !global.dtype || id.items.size() != 5) {
      broken();
    }
    storages_.push_back(
        {global.dtype, item(id, 2, Kind::kText).text, item(id, 4, Kind::kNumber).number});
    push(Kind::kStorage, static_cast<int64_t>(storages_.size()) - 1);
  }

  std::vector<int64_t> sizes(const Value& tuple) const {
    if (tuple.items.size() > kMaxDimensions) {
      fail("a tensor has " + std::to_string(tuple.items.size()) + " dimensions, but at most " +
           std::to_string(kMaxDimensions) + " are supported");
    }
    std::vector<int64_t> result;
    for (size_t i = 0; i < tuple.items.size(); ++i) {
      result.push_back(item(tuple, i, Kind::kNumber).number);
    }
    return result;
  }

  /// (storage, offset, sizes, strides, requires_grad, hooks) → the tensor.
  void push_tensor(const Value& arguments) {
    if (arguments.items.size() != 6) {
      fail("a tensor in it is of a kind that torch.save marks as special (" +
           std::to_string(arguments.items.size()) + " values, 6 expected)");
    }
    const auto index = static_cast<size_t>(item(arguments, 0, Kind::kStorage).number);
    const Storage& storage = storages_[index];
    PickledTensor tensor;
    tensor.dtype = storage.dtype;
    tensor.storage = storage.key;
    tensor.elements = storage.elements;
    tensor.offset = item(arguments, 1, Kind::kNumber).number;
    tensor.shape = sizes(item(arguments, 2, Kind::kTuple));
    tensor.strides = sizes(item(arguments, 3, Kind::kTuple));
    if (tensor.shape.size() != tensor.strides.size()) broken();
    tensors_.push_back(std::move(tensor));
    push(Kind::kTensor, static_cast<int64_t>(tensors_.size()) - 1);
  }

  void call() {
    const Ref arguments_ref = pop();
    const Ref function_ref = pop();
    if (values_[function_ref].kind != Kind::kGlobal) broken();
    if (values_[arguments_ref].kind != Kind::kTuple) broken();
    const Value& arguments = values_[arguments_ref];
    switch (kGlobals[values_[function_ref].number].what) {
      case Global::kOrderedDict:
        if (!arguments.items.empty()) broken();
        return push(Kind::kDict);
      case Global::kRebuildTensor:
        return push_tensor(arguments);
      case Global::kRebuildParameter:
        item(arguments, 0, Kind::kTensor);
        return push(arguments.items[0]);
      case Global::kStorageType:
        broken();
    }
  }

  /// Attributes of the dict (`_metadata`), of which nothing depends.
  void build() {
    pop();
    if (values_[top()].kind != Kind::kDict) broken();
  }

  /// Does one operation; true at the last.
  bool step() {
    const char operation = bytes(1)[0];
    switch (operation) {
      case '\x80':  // PROTO
        if (const uint64_t protocol = unsigned_number(1); protocol < 2 || protocol > 5) {
          fail("its pickle has the protocol " + std::to_string(protocol) +
               ", but 2 to 5 are supported");
        }
        return false;
      case '\x95':  // FRAME
        bytes(8);
        return false;
      case '.':  // STOP
        return true;
      case '(':  // MARK
        marks_.push_back(stack_.size());
        return false;
      case '}':
        push(Kind::kDict);
        return false;
      case ']':
        push(Kind::kList);
        return false;
      case ')':
        push(Kind::kTuple);
        return false;
      case 't':
        push_tuple(pop_to_mark());
        return false;
      case '\x85':
      case '\x86':
      case '\x87':
        push_tuple_of(static_cast<uint8_t>(operation) - 0x84u);
        return false;
      default:
        return memory_step(operation), false;
    }
  }

  /// Operations on memo, dicts, lists and names.
  void memory_step(char operation) {
    switch (operation) {
      case 'q':  // BINPUT
        memo_[unsigned_number(1)] = top();
        return;
      case 'r':  // LONG_BINPUT
        memo_[unsigned_number(4)] = top();
        return;
      case '\x94':  // MEMOIZE
        memo_[memo_.size()] = top();
        return;
      case 'h':  // BINGET
        return recall(unsigned_number(1));
      case 'j':  // LONG_BINGET
        return recall(unsigned_number(4));
      case 's':    // SETITEM
      case 'a': {  // APPEND
        std::vector<Ref> more = {pop()};
        if (operation == 's') more.insert(more.begin(), pop());
        return add_to(operation == 's' ? Kind::kDict : Kind::kList, more);
      }
      case 'u':  // SETITEMS
      case 'e':  // APPENDS
        return add_marked(operation == 'u' ? Kind::kDict : Kind::kList);
      case 'c': {  // GLOBAL
        const std::string_view module = line();
        return push_global(module, line());
      }
      case '\x93': {  // STACK_GLOBAL
        const Value& name = values_[pop()];
        const Value& module = values_[pop()];
        if (name.kind != Kind::kText || module.kind != Kind::kText) broken();
        return push_global(module.text, name.text);
      }
      case 'Q': {  // BINPERSID
        const Value& id = values_[pop()];
        if (id.kind != Kind::kTuple) broken();
        return push_storage(id);
      }
      case 'R':
        return call();
      case 'b':
        return build();
      default:
        return scalar_step(operation);
    }
  }

  void add_marked(Kind kind) {
    const std::vector<Ref> more = pop_to_mark();
    add_to(kind, more);
  }

  /// Numbers, texts and constants.
  void scalar_step(char operation) {
    switch (operation) {
      case 'N':
        return push(Kind::kNone);
      case '\x88':
      case '\x89':
        return push(Kind::kBool, operation == '\x88');
      case 'J':  // BININT
        return push(Kind::kNumber, signed_number(4));
      case 'K':  // BININT1
        return push(Kind::kNumber, static_cast<int64_t>(unsigned_number(1)));
      case 'M':  // BININT2
        return push(Kind::kNumber, static_cast<int64_t>(unsigned_number(2)));
      case '\x8a':  // LONG1
        return push(Kind::kNumber, signed_number(unsigned_number(1)));
      case 'X':  // BINUNICODE
        return push_text(bytes(unsigned_number(4)));
      case '\x8c':  // SHORT_BINUNICODE
        return push_text(bytes(unsigned_number(1)));
      default:
        fail("its pickle holds the operation " + std::to_string(static_cast<uint8_t>(operation)) +
             ", which a file of tensors has no need of; save the tensors alone with torch.save or "
             "as safetensors");
    }
  }

  std::string_view rest_;
  const std::string& file_;
  std::deque<Value> values_;  ///< references stay valid
  std::vector<Ref> stack_;
  std::vector<size_t> marks_;  ///< heights of the stack
  std::unordered_map<uint64_t, Ref> memo_;
  std::vector<Storage> storages_;
  std::vector<PickledTensor> tensors_;
};

}  // namespace

std::vector<PickledTensor> read_state_dict(std::string_view pickle, const std::string& file) {
  return Interpreter(pickle, file).run();
}

}  // namespace vlm
