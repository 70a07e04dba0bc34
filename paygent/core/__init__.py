"""The pure core: values in, values out. It reads no clock, no environment and no file, logs nothing and starts nothing."""
