// RoCEWire
