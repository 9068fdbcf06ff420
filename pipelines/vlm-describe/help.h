// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

namespace describe {

/// What --help prints.
inline constexpr const char kHelp[] = R"(Usage: vlm-describe [OPTION…] INPUT…

Describes pictures and video in words with a LLaVA model.

INPUT is a picture (JPEG, PNG, WebP, GIF, BMP, PNM), a video file, a directory (every picture and
video in it, sorted by name), a camera (/dev/video0) or a URI (file:, http:, rtsp:, v4l2: …; HLS
playlists too).

Examples:
  vlm-describe clip.mp4                       a line for every two seconds of the video
  vlm-describe -o clip.vtt clip.mp4           the same as subtitles
  vlm-describe -p "Is there a red circle?" picture.png
  vlm-describe -f jsonl -o descriptions.jsonl pictures/
  vlm-describe --interval 5 rtsp://camera/    until Ctrl-C
  vlm-describe -o door.jsonl rtsp://front/ rtsp://back/    two at once, each line names its source
  vlm-describe -m DIR photo.jpg               with a real LLaVA-1.5 model, see below

Model:
  -m, --model DIR           directory of a checkpoint, or a hub id in the local cache (default:
                            $VLM_MODEL, else the demo model)
      --vision-tower DIR    vision tower of an original-layout checkpoint that holds none
      --model-base DIR      base model of one that holds only a projector or LoRA
      --device NAME         auto, cpu, cuda or cuda:N (default: auto, a GPU where there is one)
      --dtype NAME          auto, float32, bfloat16 or float16 (default: auto, the checkpoint's on a
                            GPU; bfloat16 on a CPU that is fast at it, else float32)
      --quantization NAME   how the language model's weights are held: none, int8 or int4: less
                            memory and faster, less exact; w8a8 and w4a8 are also
                            multiplied in 8 bits on CPUs that are faster at it (default: none)

The demo model that comes with this program is a demonstration: it knows only simple drawn scenes
(coloured circles, squares and the like on a plain background) and GStreamer's test patterns, and it
answers in their terms whatever it is shown. For photographs and real video use a real model: put
the files of a LLaVA-1.5 checkpoint, such as llava-hf/llava-1.5-7b-hf, in a directory DIR and run
  vlm-describe -m DIR INPUT

Prompt:
  -p, --prompt TEXT         what is asked about the picture (default: "Describe the scene.")
      --prompt-file FILE    the same from a file
      --prompt-format NAME  auto, hf, raw, vicuna_v1 (v1), llava_v1, v1_mmtag, llava_v0, v0
                            (default), v0_mmtag, llava_llama_2, llama_2, llava_llama_3,
                            mistral_instruct, chatml_direct (mistral_direct), mpt or plain
                            (v0_plain); raw: the text is the whole prompt, <image> included
                            (default: auto, as the checkpoint asks)
      --system TEXT         replaces the system text of the prompt format
      --image-aspect-ratio NAME
                            auto, crop, pad or anyres (default: auto, what the checkpoint says)

Text generation; what is not given comes from the checkpoint's generation_config.json, else from the
default here:
      --max-new-tokens N    longest description, in tokens (128)
      --min-new-tokens N    shortest (0)
      --temperature T       0 takes the likeliest token, above it words are drawn (0)
      --top-k K             draw from the K likeliest tokens; 0: all (0)
      --top-p P             draw from the likeliest tokens that make up P together (1)
      --min-p P             draw from tokens at least P times as likely as the likeliest (0)
      --repetition-penalty R  above 1 avoids words that were there (1)
      --no-repeat-ngram-size N  no N tokens twice in the same order; 0: allowed (0)
      --repetition-guard N  end a text that says the same N times in a row, 16 tokens of it at
                            least, and keep it once (finish reason "repetition"); 0: let it (0)
      --num-beams B         beam search with B beams; 1: none (1)
      --length-penalty A    of beam search, above 0 favours long texts (1)
      --early-stopping WHEN  of beam search: false, true or never (false)
      --stop TEXT           end at this text; may be given several times
      --seed S              same seed, same text (default: another one for each run)

Video:
      --interval SECONDS    time that one description covers, 0.001 at least; 0 describes every
                            frame of a recording (2)
      --frames N            frames that one description looks at (1)
      --start SECONDS       begin here in a recording
      --end SECONDS         end here in a recording

Live sources, such as cameras, go on until Ctrl-C, which ends them properly; several are described
at once, by one model. While it is busy with one interval, the next ones are passed over. A source
that was there and is lost is connected to again, after 1 s, 2 s and so on up to 30 s, for as long
as it takes; one line on standard error says that it is lost, and one that it is back. Numbers and
times of its descriptions go on. One that can't be reached at first is an error.
      --lost-after SECONDS  without a picture for so long a source counts as lost (10; the first
                            picture is waited for 30 s at least)
      --give-up-after SECONDS  a source that was lost for so long has failed (default: never)

Output:
  -f, --format NAME         text, jsonl, vtt or srt (default: by the ending of -o, else text)
  -o, --output FILE         default: standard output. With several inputs a directory, which gets
                            one file for each; with jsonl also one file for all. The file appears
                            when it is complete; a live source's grows line by line, text and
                            jsonl behind what the file holds. No file that is read is written to
      --top-logprobs N      jsonl: the N likeliest tokens in the place of each chosen one, 1024 at
                            most; 0: none (0)
      --trace FILE          tensors of the first description as safetensors
  -q, --quiet               no progress
  -v, --verbose             say more on standard error
      --version             print the version
  -h, --help                print this

Exit status: 0 all was described; 1 some input failed, one line for each on standard error, the
others were described; 2 wrong usage; 3 the model could not be loaded.
)";

}  // namespace describe
