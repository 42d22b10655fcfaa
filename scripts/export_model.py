"""Export a model: a folder as the Hugging Face Hub has them, or an ONNX file.

python scripts/export_model.py --hub-folder output/hub --onnx output/model.onnx
"""

import _bootstrap

if __name__ == "__main__":
    _bootstrap.run("export")
