// CMake makes the precompiled header beside an object file: this one.
