import Testing

/// All suites of soft, one after the other: their threads poll, and would take each other's processors.
@Suite("soft", .serialized)
enum Soft {}
