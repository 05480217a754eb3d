import CSimulatorABI
import Glibc

/// The simulator's functions; nil when it was not preloaded.
package nonisolated(unsafe) let sim = uverbs_sim_load()

/// Ends the program with file, line and message unless the condition holds.
package func check(
    _ condition: Bool, _ what: @autoclosure () -> String, file: StaticString = #fileID, line: UInt = #line
) {
    if condition { return }
    print("\(file):\(line): \(what())")
    if let sim, let refusal = sim.pointee.refusal(0), refusal.pointee != 0 {
        print("the simulator has refused: \(String(cString: refusal))")
    }
    exit(1)
}

/// Ends the program, like `check`, unless the values are equal.
package func equal<Value: Equatable>(
    _ found: Value, _ wanted: Value, _ what: @autoclosure () -> String, file: StaticString = #fileID,
    line: UInt = #line
) {
    check(found == wanted, "\(what()): \(found), not \(wanted)", file: file, line: line)
}

/// Returns the value, and ends the program, like `check`, if it is nil.
package func have<Value>(
    _ value: Value?, _ what: @autoclosure () -> String, file: StaticString = #fileID, line: UInt = #line
) -> Value {
    check(value != nil, "\(what()): errno \(errno)", file: file, line: line)
    return value!
}
