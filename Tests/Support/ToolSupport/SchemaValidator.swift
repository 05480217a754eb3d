import Foundation

/// Checks JSON documents against the schemas in Documentation/schema. Implements the part of JSON Schema 2020-12 that
/// they use, and reports other keywords, so that no rule is ignored.
public struct SchemaValidator {
    private let root: [String: Any]

    public init(named name: String) throws {
        let url = Repository.root.appending(path: "Documentation/schema/\(name).json")
        guard let root = try JSONSerialization.jsonObject(with: Data(contentsOf: url)) as? [String: Any] else {
            throw Tool.Unexpected(text: url.path)
        }
        self.root = root
    }

    /// The violations of a document; empty if it is valid.
    public func faults(_ document: Any) -> [String] { faults(document, root, "$") }

    private func faults(_ value: Any, _ schema: [String: Any], _ path: String) -> [String] {
        schema.flatMap { keyword, rule in
            inner(value, keyword, rule, path) ?? outer(value, keyword, rule, schema).map { "\(path): \($0)" }
        }
    }

    /// The violations within the parts of a value; nil if the rule applies to the value itself.
    private func inner(_ value: Any, _ keyword: String, _ rule: Any, _ path: String) -> [String]? {
        switch keyword {
        // A schema for members that `properties` does not list.
        case "additionalProperties":
            guard let rule = rule as? [String: Any] else { return nil }
            return (value as? [String: Any] ?? [:]).flatMap { faults($0.value, rule, "\(path).\($0.key)") }
        case "$ref":
            guard let name = (rule as? String)?.split(separator: "/").last,
                let target = (root["$defs"] as? [String: Any])?[String(name)] as? [String: Any]
            else { return ["\(path): \(rule) does not exist"] }
            return faults(value, target, path)
        case "items":
            guard let items = value as? [Any], let rule = rule as? [String: Any] else { return [] }
            return items.enumerated().flatMap { faults($1, rule, "\(path)[\($0)]") }
        case "properties":
            guard let object = value as? [String: Any], let rules = rule as? [String: [String: Any]] else { return [] }
            return rules.flatMap { name, rule in object[name].map { faults($0, rule, "\(path).\(name)") } ?? [] }
        default: return nil
        }
    }

    private func outer(_ value: Any, _ keyword: String, _ rule: Any, _ schema: [String: Any]) -> [String] {
        switch keyword {
        case "$schema", "title", "description", "$defs": return []
        case "type": return isOfType(value, rule as? String ?? "") ? [] : ["\(value) is not of type \(rule)"]
        case "const": return same(value, rule) ? [] : ["\(value) is not \(rule)"]
        case "enum":
            return (rule as? [Any] ?? []).contains { same(value, $0) } ? [] : ["\(value) is not one of \(rule)"]
        case "minimum":
            let number = (value as? NSNumber)?.doubleValue ?? 0
            return number >= (rule as? NSNumber)?.doubleValue ?? 0 ? [] : ["\(value) is below \(rule)"]
        case "pattern":
            let matches = (value as? String)?.range(of: rule as? String ?? "", options: .regularExpression) != nil
            return matches ? [] : ["\(value) does not match \(rule)"]
        case "required":
            let names = (value as? [String: Any]).map { Set($0.keys) } ?? []
            return (rule as? [String] ?? []).filter { !names.contains($0) }.map { "\($0) is missing" }
        case "additionalProperties":
            let known = (schema["properties"] as? [String: Any] ?? [:]).keys
            return (value as? [String: Any] ?? [:]).keys.filter { !known.contains($0) }.map {
                "\($0) is not in the schema"
            }
        default: return ["the schema has an unsupported keyword: \(keyword)"]
        }
    }

    private func isOfType(_ value: Any, _ type: String) -> Bool {
        let isBoolean = (value as? NSNumber).map { Boolean.isBoolean($0) } ?? false
        switch type {
        case "object": return value is [String: Any]
        case "array": return value is [Any]
        case "string": return value is String
        case "boolean": return isBoolean
        case "number": return value is NSNumber && !isBoolean
        case "integer":
            return !isBoolean && (value as? NSNumber).map { $0.doubleValue == $0.doubleValue.rounded() } ?? false
        default: return false
        }
    }

    private func same(_ left: Any, _ right: Any) -> Bool { left as? String == right as? String && left is String }

    /// Foundation decodes booleans as NSNumber of type `char`.
    private enum Boolean {
        static func isBoolean(_ number: NSNumber) -> Bool { String(cString: number.objCType) == "c" }
    }
}

/// The source tree of the tests.
public enum Repository {
    public static let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent().deletingLastPathComponent()
}
