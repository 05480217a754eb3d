import CLinux
import CProviderABI

extension StaticString {
    /// The literal as a C string, which lives as long as the process.
    var cString: UnsafePointer<CChar> {
        UnsafeRawPointer(utf8Start).assumingMemoryBound(to: CChar.self)
    }
}

/// One line of text for a person, built without `String`, whose Unicode tables would double the module. What does not
/// fit into 511 bytes is cut off.
struct Sentence: ~Copyable {
    private static let capacity = 512
    private let bytes = UnsafeMutablePointer<CChar>.allocate(capacity: Sentence.capacity)
    private var count = 0

    init(_ text: StaticString = "") {
        bytes[0] = 0
        append(text)
    }

    deinit { bytes.deallocate() }

    mutating func append(_ text: StaticString) {
        append(text.cString)
    }

    mutating func append(_ text: UnsafePointer<CChar>?) {
        guard var next = text else { return }
        while next.pointee != 0 && count < Self.capacity - 1 {
            bytes[count] = next.pointee
            count += 1
            next += 1
        }
        bytes[count] = 0
    }

    mutating func append(_ number: Int) {
        if number < 0 { append("-") }
        var rest = number.magnitude
        var divisor: UInt = 1
        while rest / divisor >= 10 { divisor *= 10 }
        while divisor > 0 {
            guard count < Self.capacity - 1 else { return }
            bytes[count] = CChar(48 + rest / divisor)
            count += 1
            rest %= divisor
            divisor /= 10
        }
        bytes[count] = 0
    }

    /// The text; valid while the sentence lives.
    func withCString(_ body: (UnsafePointer<CChar>) -> Void) { body(bytes) }

    func store(in why: UnsafeMutablePointer<rdma_reason>?) {
        if let why { rdma_set_reason(why, bytes) }
    }

    /// Hands the text to the core's log.
    func log(_ level: rdma_log_level) {
        guard let core = Log.core, let log = core.pointee.log else { return }
        log(level, providerName.cString, bytes)
    }
}

/// Name of the provider, as in its driver file.
let providerName: StaticString = "soft"

enum Log {
    /// The core that entered us; set once, before anything else runs.
    nonisolated(unsafe) static var core: UnsafePointer<rdma_core>?
}
