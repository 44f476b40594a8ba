"""tagbus.models: training and export of the models. It needs torch, and the service never imports it."""
