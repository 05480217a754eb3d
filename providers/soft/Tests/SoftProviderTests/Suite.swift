import Testing

/// All suites of soft, serialized: their threads poll, and would compete for the processors.
@Suite("soft", .serialized)
enum Soft {}
