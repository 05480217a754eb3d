import Testing

@testable import ProviderLoader

@Suite("Versions of providers")
struct ProviderVersionTests {
    /// Versions in ascending order.
    static let ordered = [
        "0", "0.9", "1~rc1", "1", "1.2~~a", "1.2~rc1", "1.2~rc1.1", "1.2~rc2", "1.2~rc10", "1.2-beta", "1.2-rc9",
        "1.2-rc10", "1.2", "1.2+git5", "1.2+git10", "1.2-0ubuntu1", "1.2-1~bpo12", "1.2-1", "1.2-1.1", "1.2-2",
        "1.2-10", "1.2.0", "1.2.1", "1.10", "2", "24.10-2.1", "999999999999999999",
    ]

    @Test("Every version of an ascending list is below all later ones and equal only to itself")
    func order() throws {
        let versions = try ProviderVersionTests.ordered.map { try #require(ProviderVersion($0), "\($0)") }
        for (i, left) in versions.enumerated() {
            for (j, right) in versions.enumerated() {
                #expect((left < right) == (i < j), "\(left) < \(right)")
                #expect((left == right) == (i == j), "\(left) == \(right)")
            }
        }
    }

    @Test("The order is total: of two different versions one is lower, and it is transitive")
    func total() throws {
        let suffixes = ["", "~", "~1", "-1", "-a", "+0", "+00", "-a01", "-a1", "~a.b", "-1~", "-1~~", "+1_", "+1-"]
        let versions = ["1", "1.0", "01", "2"].flatMap { number in
            suffixes.compactMap { ProviderVersion(number + $0) }
        }
        for a in versions {
            for b in versions {
                #expect([a < b, a == b, b < a].filter(\.self).count == 1, "\(a) and \(b)")
                for c in versions where a < b && b < c {
                    #expect(a < c, "\(a), \(b), \(c)")
                }
            }
        }
    }

    @Test("Leading zeros of the numbers are ignored")
    func leadingZeros() {
        #expect(ProviderVersion("01.002") == ProviderVersion("1.2"))
    }

    @Test(
        "A text that is not a version is refused",
        arguments: [
            "", "v1", "1.", ".1", "1..2", "1.2rc1", "1 2", "-1", "1-", "1~", "1.2-ä", "1,2", "1234567890123456789",
            String(repeating: "1.", count: 70) + "1",
        ])
    func refused(_ text: String) {
        #expect(ProviderVersion(text) == nil)
    }

    @Test("Device names are sorted by the values of their numbers")
    func natural() {
        let names = ["mlx5_10", "rxe0", "mlx5_2", "mlx5_02", "mlx5", "mlx5_2a"]
        #expect(names.sorted(by: naturallyPrecedes) == ["mlx5", "mlx5_02", "mlx5_2", "mlx5_2a", "mlx5_10", "rxe0"])
    }
}
