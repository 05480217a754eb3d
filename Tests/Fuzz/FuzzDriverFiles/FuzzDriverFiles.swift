import ProviderLoader

/// Feeds the parser of driver files with whatever libFuzzer thinks of.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzDriverFiles(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    if let violation = violation(Array(UnsafeBufferPointer(start: start, count: count))) {
        fatalError(violation)
    }
    return 0
}

/// Says what is wrong with how `bytes` are read; nil if all is well. Bytes that parse have a canonical form, which
/// parses to the same value; those that do not give an error with the path, a line of the file and a hint.
private func violation(_ bytes: [UInt8]) -> String? {
    let file: DriverFile
    do throws(Problem) {
        file = try DriverFile(parsing: bytes, path: "fuzz.driver")
    } catch {
        let lines = bytes.count { $0 == UInt8(ascii: "\n") } + 1
        guard error.path == "fuzz.driver", !error.sentence.isEmpty, !error.hint.isEmpty,
            error.line.map((1...lines).contains) ?? true
        else { return "an untrue error: \(error)" }
        return nil
    }
    for case .name(let pattern) in file.matches {
        // The names that make a matcher go back most often, and the pattern itself as a name.
        _ = pattern.matches(String(repeating: "a", count: 63)) || pattern.matches(pattern.description)
    }
    do throws(Problem) {
        let again = try DriverFile(parsing: Array(file.description.utf8), path: "fuzz.driver")
        return again == file && again.description == file.description ? nil : "the canonical form differs: \(file)"
    } catch {
        return "the canonical form does not parse: \(error)"
    }
}
