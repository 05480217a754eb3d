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

    /// Each generation with both CQE sizes and both command protocols, with doorbells that queues share, and with send queues
    /// in the adapter's memory.
    private static let cxgb4: [String] =
        ["t4", "t5", "t6"].flatMap { chip in
            ["", " write"].flatMap { way in ["", " cqe32"].map { "cxgb4 \(chip)\(way)\($0)" } }
        } + ["cxgb4 t5 dense", "cxgb4 t6 dense write", "cxgb4 t4 onchip", "cxgb4 t5 notrap"]

    #if arch(x86_64)
        static let canTrap = true
    #else
        static let canTrap = false
    #endif
}
