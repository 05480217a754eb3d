import FoundationEssentials
import Glibc
import RDMANetlink

/// A snapshot of the counters of a port: those of the driver over netlink, and those of the port in sysfs (bytes and
/// packets).
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

    /// The increase per second since `before` by counter name, without counters that did not change.
    func rates(since before: PortCounters) -> [String: Double] {
        let seconds = Double(max(time &- before.time, 1)) / 1e9
        var rates: [String: Double] = [:]
        for (name, value) in values {
            // Skips a counter that wrapped, or that started at zero because the device was recreated.
            guard let old = before.values[name], value > old else { continue }
            rates[name] = Double(value - old) / seconds
        }
        return rates
    }
}

extension [String: Double] {
    /// `rcvd_pkts 1200/s  sent_pkts 1199/s`, sorted by name; `idle` if no counter changed.
    var rateText: String {
        isEmpty
            ? "idle"
            : sorted { $0.key < $1.key }.map { "\($0.key) \(Units.threeDigits($0.value))/s" }.joined(separator: "  ")
    }
}
