import Foundation
import WireSupport

/// Packets that the Linux kernel sent: see Fixtures/rxe.pcap.md.
enum Capture {
    /// All 249 frames.
    static let frames: [Frame] = {
        guard let url = Bundle.module.url(forResource: "rxe", withExtension: "pcap", subdirectory: "Fixtures"),
            let data = try? Data(contentsOf: url)
        else { fatalError("Fixtures/rxe.pcap is missing") }
        return PCAP.packets([UInt8](data)).enumerated().map { index, ethernet in
            do {
                return try Frame(number: index + 1, bytes: Array(ethernet[14...]))
            } catch {
                fatalError("frame \(index + 1) does not parse: \(error)")
            }
        }
    }()

    /// A frame by its number, from 1.
    static func frame(_ number: Int) -> Frame { frames[number - 1] }
}
