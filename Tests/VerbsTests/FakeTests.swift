import Testing

/// The suites that use the fake provider. They are serialized, because its record is shared by the process.
@Suite("With the recording fake provider", .serialized)
struct FakeTests {}
