import Testing

@testable import ProviderLoader

@Suite("Patterns of device names")
struct NamePatternTests {
    @Test(
        "A pattern matches the names that it describes",
        arguments: [
            ("mlx5_0", "mlx5_0"), ("mlx5_*", "mlx5_"), ("mlx5_*", "mlx5_bond_0"), ("*", "x"), ("*_0", "mlx5_0_0"),
            ("mlx5_?", "mlx5_7"), ("*a*b*", "xaybz"), ("mlx[45]_*", "mlx4_0"), ("mlx[4-6]_*", "mlx5_0"),
            ("mlx[!4]_0", "mlx5_0"), ("a[-]b", "a-b"), ("a[b-]c", "a-c"), ("*.*", "a.b"), ("a**b", "ab"),
        ])
    func matches(_ pattern: String, _ name: String) throws {
        #expect(try #require(NamePattern(pattern)).matches(name))
    }

    @Test(
        "A pattern matches no other names",
        arguments: [
            ("mlx5_0", "mlx5_00"), ("mlx5_*", "mlx4_0"), ("mlx5_?", "mlx5_10"), ("mlx5_?", "mlx5_"), ("?*", ""),
            ("mlx[45]_*", "mlx6_0"), ("mlx[!4]_0", "mlx4_0"), ("*a*b", "xbya"), ("MLX5_0", "mlx5_0"), ("a", ""),
        ])
    func matchesNot(_ pattern: String, _ name: String) throws {
        #expect(try !#require(NamePattern(pattern)).matches(name))
    }

    @Test(
        "A pattern that is empty, too long, blank or not closed is refused",
        arguments: [
            "", "a b", "[", "a[]", "[!]",
            "[z-a]", "mlx5_[0", String(repeating: "a", count: 257),
        ])
    func refused(_ text: String) {
        #expect(NamePattern(text) == nil)
    }

    @Test("Matching a pattern with many stars takes at most pattern length times name length steps")
    func noBlowUp() throws {
        let pattern = try #require(NamePattern(String(repeating: "a*", count: 120) + "b"))
        #expect(!pattern.matches(String(repeating: "a", count: 63)))
    }
}
