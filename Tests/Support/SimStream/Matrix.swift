/// The types of device on which libraries are compared.
enum Matrix {
    static let all = mlx5 + ["hfi1", "hfi1 write"]

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

    #if arch(x86_64)
        private static let canTrap = true
    #else
        private static let canTrap = false
    #endif
}
