"""Networks as graphs that run without this package: torch.export, ONNX and TorchScript."""

from topolora_monai.export.adapter import export_adapter
from topolora_monai.export.formats import EXPORT_FORMATS, ExportFormat
from topolora_monai.export.network import PARITY, Exported, export_network
from topolora_monai.export.quantization import quantize

__all__ = ["EXPORT_FORMATS", "PARITY", "ExportFormat", "Exported", "export_adapter", "export_network", "quantize"]
