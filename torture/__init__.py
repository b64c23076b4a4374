"""What is done to the project to see whether it breaks: `make torture` runs all of it, `make test` the short part."""

import ser_model  # noqa: F401  before ONNX Runtime, whose telemetry it turns off
