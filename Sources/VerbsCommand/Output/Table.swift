/// Rows under headings; each column is as wide as its widest cell.
struct Table {
    struct Column {
        enum Alignment { case left, right }
        var heading: String
        var alignment: Alignment

        static func left(_ heading: String) -> Column { Column(heading: heading, alignment: .left) }
        static func right(_ heading: String) -> Column { Column(heading: heading, alignment: .right) }
    }

    private let columns: [Column]
    private(set) var rows: [[String]] = []

    init(_ columns: Column...) { self.columns = columns }

    init(_ columns: [Column]) { self.columns = columns }

    /// Adds a row: one cell for each column.
    mutating func add(_ cells: String...) { add(cells) }

    mutating func add(_ cells: [String]) {
        precondition(cells.count == columns.count)
        rows.append(cells.map(\.printable))
    }

    /// The lines, each with a newline; two spaces between columns, none at the end of a line.
    var text: String {
        let widths = columns.indices.map { column in
            rows.map { $0[column].count }.reduce(columns[column].heading.count, max)
        }
        return ([columns.map(\.heading)] + rows).map { cells in
            var line = ""
            for (column, cell) in cells.enumerated() {
                let padding = String(repeating: " ", count: widths[column] - cell.count)
                line += columns[column].alignment == .right ? padding + cell : cell + padding
                line += "  "
            }
            while line.last == " " { line.removeLast() }
            return line + "\n"
        }.joined()
    }
}

/// Lines of the form `name: value`, with aligned values.
struct PropertyList {
    private var entries: [(name: String, value: String)] = []

    mutating func add(_ name: String, _ value: String) { entries.append((name, value.printable)) }

    /// The lines, each with a newline, indented by `indent` spaces.
    func text(indent: Int = 0) -> String {
        let width = entries.map(\.name.count).max() ?? 0
        let margin = String(repeating: " ", count: indent)
        return entries.map { name, value in
            margin + name + ":" + String(repeating: " ", count: width - name.count + 1) + value + "\n"
        }.joined()
    }
}

extension String {
    /// The text with control characters replaced: strings from a file, a device or a peer must not control the
    /// terminal.
    var printable: String {
        String(String.UnicodeScalarView(unicodeScalars.map { $0.properties.generalCategory == .control ? "?" : $0 }))
    }
}
