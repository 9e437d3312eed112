"""Makes a folder, which `backbone` takes, of a GGUF file.

python docs/examples/gguf_to_folder.py model.gguf FOLDER

transformers reads the file and widens its quantized weights to float32; it needs torch and gguf
(pip install torch gguf). What the quantization rounded off stays lost.
"""

import argparse
from pathlib import Path

import transformers


def convert(source: Path, folder: Path) -> None:
    """Writes the trunk of a GGUF file and its tokenizer as `transformers` does.

    Args:
      source: the file.
      folder: where to; made if need be.
    """
    read = {"pretrained_model_name_or_path": source.parent, "gguf_file": source.name}
    widened = transformers.AutoModel.from_pretrained(**read)
    settings = widened.config
    # As long as it is marked as quantized, transformers refuses to save it.
    del settings.quantization_config
    model = type(widened)(settings)
    model.load_state_dict(widened.state_dict())
    model.save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(**read).save_pretrained(folder)


def main(arguments: list[str] | None = None) -> None:
    """Runs the program."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("source", type=Path, metavar="FILE.gguf")
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    options = parser.parse_args(arguments)
    convert(options.source, options.folder)
    print(
        f"{options.folder}: --config.backbone={options.folder}, or backbone={str(options.folder)!r}"
    )


if __name__ == "__main__":
    main()
