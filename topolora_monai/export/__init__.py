"""Networks as graphs that run without this package: torch.export, ONNX and TorchScript."""

from topolora_monai.export.formats import EXPORT_FORMATS, ExportFormat, quantize
from topolora_monai.export.network import PARITY, Exported, export_adapter, export_network

__all__ = ["EXPORT_FORMATS", "PARITY", "ExportFormat", "Exported", "export_adapter", "export_network", "quantize"]
