#pragma once

namespace mlomae {

/// Makes the standard streams harmless, before anything is opened: a reader that is gone or a file
/// that may not grow is no signal, and a stream that was closed does not become the first file that
/// is opened.
void guard_standard_streams();

/// Whether all that was printed has arrived; says on stderr if not.
bool printed();

}  // namespace mlomae
