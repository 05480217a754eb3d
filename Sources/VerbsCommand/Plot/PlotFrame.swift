/// The parts that the pictures have in common: heading, legend, and panels with axes.
struct PlotFrame {
    /// An entry of the legend.
    struct Key {
        enum Mark: Equatable {
            /// The color and the marker of a series.
            case series(Int)
            /// A neutral line.
            case line(isDashed: Bool)
        }

        var mark: Mark
        var text: String
    }

    /// A rectangle in which values are drawn.
    struct Panel {
        var left: Double
        var top: Double
        var width: Double
        var height: Double
        var horizontal: Axis
        var vertical: Axis

        func x(_ value: Double) -> Double { left + width * horizontal.fraction(value) }
        func y(_ value: Double) -> Double { top + height * (1 - vertical.fraction(value)) }
    }

    static let width = 1040.0
    static let margin = 24.0
    /// The room for the labels of a vertical axis, in pixels.
    private static let labelWidth = 64.0
    private static let gap = 28.0
    /// The room of a panel for its heading above, and for labels and name of the horizontal axis below.
    private static let above = 38.0
    private static let below = 48.0
    private static let keyWidth = 34.0

    /// A name at the beginning of an entry of the legend, short enough that the rest of the entry is visible.
    static func shortened(_ name: String) -> String { SVGDocument.fitted(name, width: 320) }

    private(set) var document = SVGDocument()
    /// The lower end of what is drawn.
    private(set) var bottom = 0.0

    init(heading: String, subheading: String) {
        let room = Self.width - 2 * Self.margin
        document.add(
            text: SVGDocument.fitted(heading, width: room, fontSize: 16), x: Self.margin, y: 34, style: "heading")
        document.add(
            text: SVGDocument.fitted(subheading, width: room), x: Self.margin, y: 54, style: "quiet")
        bottom = 64
    }

    /// Adds a legend, with as many entries in a row as fit.
    mutating func addLegend(_ keys: [Key]) {
        let room = Self.width - 2 * Self.margin
        var x = Self.margin
        var y = bottom + 16
        for key in keys {
            let text = SVGDocument.fitted(key.text, width: room - Self.keyWidth)
            let width = Self.keyWidth + SVGDocument.width(of: text)
            if x > Self.margin, x + width > Self.margin + room {
                x = Self.margin
                y += 20
            }
            let middle = y - 4
            switch key.mark {
            case .series(let series):
                document.addLine(
                    from: (x, middle), to: (x + 26, middle), style: "\(SVGDocument.style(ofSeries: series)) line")
                document.addMarker(series, x: x + 13, y: middle, style: "marker")
            case .line(let isDashed):
                document.addLine(from: (x, middle), to: (x + 26, middle), style: isDashed ? "key dashed" : "key")
            }
            document.add(text: text, x: x + Self.keyWidth, y: y, style: "legend")
            x += width + 22
        }
        bottom = y + 8
    }

    /// Adds a row of panels of equal width, whose values are `height` pixels high.
    mutating func addRow(
        _ panels: [(heading: String, horizontal: Axis, vertical: Axis, name: String)], height: Double
    ) -> [Panel] {
        let count = Double(panels.count)
        let each = (Self.width - 2 * Self.margin - Self.gap * (count - 1)) / count
        let top = bottom + Self.above
        let added = panels.enumerated().map { index, panel in
            let left = Self.margin + Double(index) * (each + Self.gap) + Self.labelWidth
            let frame = Panel(
                left: left, top: top, width: each - Self.labelWidth - 16, height: height, horizontal: panel.horizontal,
                vertical: panel.vertical)
            draw(frame, heading: panel.heading, name: panel.name)
            return frame
        }
        bottom = top + height + Self.below
        return added
    }

    private mutating func draw(_ panel: Panel, heading: String, name: String) {
        let right = panel.left + panel.width
        let end = panel.top + panel.height
        document.add(text: heading, x: panel.left - Self.labelWidth, y: panel.top - 18, style: "panel")
        for tick in panel.vertical.ticks {
            let y = panel.y(tick.value)
            document.addLine(from: (panel.left, y), to: (right, y), style: "grid")
            document.add(text: tick.label, x: panel.left - 8, y: y + 4, anchor: "end", style: "quiet vertical")
        }
        for tick in panel.horizontal.ticks {
            let x = panel.x(tick.value)
            document.addLine(from: (x, panel.top), to: (x, end), style: "grid")
            document.addLine(from: (x, end), to: (x, end + 5), style: "axis")
            document.add(text: tick.label, x: x, y: end + 18, anchor: "middle", style: "quiet horizontal")
        }
        document.addLine(from: (panel.left, end), to: (right, end), style: "axis")
        document.addLine(from: (panel.left, panel.top), to: (panel.left, end), style: "axis")
        document.add(text: name, x: panel.left + panel.width / 2, y: end + 37, anchor: "middle", style: "quiet")
    }

    /// Calls `body` to draw values.
    mutating func draw(_ body: (inout SVGDocument) -> Void) { body(&document) }

    /// The whole document.
    func text(title: String, description: String) -> String {
        document.text(width: Self.width, height: bottom + 12, title: title, description: description)
    }
}
