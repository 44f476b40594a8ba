"""ONNX Runtime without its telemetry; no other module imports it.

As it comes it writes a device id and a database under the home directory when it is imported, a file in the temporary
folder, and looks up a host of its vendor some seconds later. The variable is read at the import, and processes that
this one starts have it too.

Source: onnxruntime.ai, privacy.
"""

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime as onnxruntime
from onnxruntime import InferenceSession as InferenceSession
from onnxruntime import OrtValue as OrtValue
from onnxruntime import SessionOptions as SessionOptions
