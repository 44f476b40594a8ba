"""`tagbus train whole`: all layers of an encoder, and of encoders cut from it, against all tags in every step."""
