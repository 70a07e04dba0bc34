"""The pure core: values in, values out. It reads no clock, environment or file, logs and starts nothing."""
