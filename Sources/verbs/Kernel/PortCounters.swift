import FoundationEssentials
import Glibc
import RDMANetlink

/// The counters of a port at one moment: those that the driver tells over netlink, and those that hardware has in
/// sysfs (bytes and packets of the port).
struct PortCounters {
    var values: [String: UInt64] = [:]
    /// In nanoseconds of `Clock`.
    var time: UInt64

    init(of link: RDMALink, _ kernel: borrowing KernelRDMA) {
        time = Clock.now()
        for counter in (try? kernel.counters(of: link)) ?? [] { values[counter.name] = counter.value }
        let directory = "/sys/class/infiniband/\(link.deviceName)/ports/\(link.port)/counters"
        for name in (try? FileManager.default.contentsOfDirectory(atPath: directory)) ?? [] {
            guard let data = FileManager.default.contents(atPath: directory + "/" + name) else { continue }
            values[name] = UInt64(String(decoding: data, as: UTF8.self).filter { $0 != "\n" })
        }
    }

    /// How much each counter has grown in a second since `before`, by its name; those that stand still are left out.
    func rates(since before: PortCounters) -> [String: Double] {
        let seconds = Double(max(time &- before.time, 1)) / 1e9
        var rates: [String: Double] = [:]
        for (name, value) in values {
            // A counter wraps; a device that was made anew begins at zero.
            guard let old = before.values[name], value > old else { continue }
            rates[name] = Double(value - old) / seconds
        }
        return rates
    }
}

extension [String: Double] {
    /// `rcvd_pkts 1200/s  sent_pkts 1199/s`, in the order of the names; `idle` where nothing moves.
    var rateText: String {
        isEmpty
            ? "idle"
            : sorted { $0.key < $1.key }.map { "\($0.key) \(Units.threeDigits($0.value))/s" }.joined(separator: "  ")
    }
}
