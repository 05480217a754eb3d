import ProviderLoader

/// Passes the fuzzer's input to the parser of driver files.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzDriverFiles(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    if let violation = violation(Array(UnsafeBufferPointer(start: start, count: count))) {
        fatalError(violation)
    }
    return 0
}

/// Parses `bytes` and returns the violated property, or nil. Bytes that parse have a canonical form, which parses to
/// the same value; for others the error has the path, a line of the file and a hint.
private func violation(_ bytes: [UInt8]) -> String? {
    let file: DriverFile
    do throws(Problem) {
        file = try DriverFile(parsing: bytes, path: "fuzz.driver")
    } catch {
        let lines = bytes.count { $0 == UInt8(ascii: "\n") } + 1
        guard error.path == "fuzz.driver", !error.message.isEmpty, !error.hint.isEmpty,
            error.line.map((1...lines).contains) ?? true
        else { return "a wrong error: \(error)" }
        return nil
    }
    for case .name(let pattern) in file.matches {
        // A name that maximizes the backtracking of a matcher, and the pattern itself as a name.
        _ = pattern.matches(String(repeating: "a", count: 63)) || pattern.matches(pattern.description)
    }
    do throws(Problem) {
        let again = try DriverFile(parsing: Array(file.description.utf8), path: "fuzz.driver")
        return again == file && again.description == file.description ? nil : "the canonical form differs: \(file)"
    } catch {
        return "the canonical form does not parse: \(error)"
    }
}
