"""ONNX Runtime without its telemetry; no other module imports it.

By default it writes a device id and a database under the home directory on import, a file in the temporary folder, and
looks up a host of its vendor some seconds later. The variable is read on import, and child processes inherit it.

Source: onnxruntime.ai, privacy.
"""

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime as onnxruntime
from onnxruntime import InferenceSession as InferenceSession
from onnxruntime import OrtValue as OrtValue
from onnxruntime import SessionOptions as SessionOptions
