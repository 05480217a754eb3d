// RoCETransport
