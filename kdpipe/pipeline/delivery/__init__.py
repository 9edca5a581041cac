"""Out again: a network as ONNX and safetensors with a card, and vectors and maps as Parquet."""
