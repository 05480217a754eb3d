/// The kinds of device over which libraries are compared.
enum Matrix {
    static let all = mlx5 + ["hfi1", "hfi1 write"]

    /// Each way of commands and registers, each version and size of completions, each network; doorbells are trapped one
    /// by one in half of them, so that each of these is trapped once. A kernel without ioctl has static registers.
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
