import Testing

/// Everything that runs on the fake provider, whose record is one for the process: one test after the other.
@Suite("On a provider that records", .serialized)
struct FakeTests {}
