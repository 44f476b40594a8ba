"""The composition root: settings become running objects. Commands, training and tests are built on it."""
