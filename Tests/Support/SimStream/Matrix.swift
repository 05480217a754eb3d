/// The types of device on which libraries are compared.
enum Matrix {
    static let all = mlx5 + ["hfi1", "hfi1 write"] + cxgb4

    /// All combinations of command protocol and UAR pages, cqe_version, CQE size and link layer; doorbells are trapped
    /// in half of them. A kernel without ioctl has static UAR pages.
    private static let mlx5: [String] = {
        var kinds: [String] = []
        for (way, kernel) in ["", " static", " write"].enumerated() {
            for (version, names) in ["", " cqe0"].enumerated() {
                for (size, entries) in ["", " 128"].enumerated() {
                    for (place, network) in ["", " roce"].enumerated() {
                        let isTrapped = (way + version + size + place) % 2 == 0
                        kinds.append(
                            "mlx5" + (isTrapped && canTrap ? " trap" : "") + kernel + names + network + entries)
                    }
                }
            }
        }
        return kinds
    }()

    /// All combinations of adapter, command protocol and CQE size; and the other forms of queues and doorbells. CQEs of
    /// 32 bytes come first: after the first of 64 bytes, libcxgb4 expects that size in the whole process.
    private static let cxgb4: [String] = {
        var kinds: [String] = []
        for size in [" cqe32", ""] {
            for chip in 4...6 {
                for protocols in ["", " write"] { kinds.append("cxgb4 t\(chip)\(protocols)\(size)") }
            }
        }
        return kinds + ["cxgb4 t4 onchip", "cxgb4 t5 dense", "cxgb4 t6 dense"]
    }()

    #if arch(x86_64)
        private static let canTrap = true
    #else
        private static let canTrap = false
    #endif
}
