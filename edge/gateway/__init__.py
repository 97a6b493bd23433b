"""Hold the devices' sockets; pace what they play."""
