//! Stands in for the unwinder in the static release, where no panic unwinds and no backtrace is printed.
//!
//! The standard library cannot know that: its own panic hook, which `cli::bug` replaces, walks the stack and names its
//! functions, and so brings an unwinder and a reader of debug information into every binary: 250 KB. Here a walk
//! ends before its first frame. The compiler sees that, since it optimizes the binary as a whole, and leaves the rest out.
//!
//! The signatures are those of the [Itanium C++ ABI](https://itanium-cxx-abi.github.io/cxx-abi/abi-eh.html).

#![expect(unsafe_code, reason = "the names are those that the standard library links to")]

use std::ffi::{c_int, c_void};
use std::process::abort;

/// `_URC_END_OF_STACK`.
const END_OF_STACK: c_int = 5;

// SAFETY, of all names below: nothing else in the binary defines them, and the signatures are those of the ABI.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Backtrace(_: *const c_void, _: *mut c_void) -> c_int {
    END_OF_STACK
}

/// Functions that are called only while a panic unwinds, or with a frame of the stack.
macro_rules! never_called {
    ($($name:ident($($argument:ty),*) -> $result:ty;)*) => {$(
        #[unsafe(no_mangle)]
        extern "C" fn $name($(_: $argument),*) -> $result {
            abort()
        }
    )*};
}

never_called! {
    _Unwind_FindEnclosingFunction(*mut c_void) -> *mut c_void;
    _Unwind_GetCFA(*mut c_void) -> usize;
    _Unwind_GetDataRelBase(*mut c_void) -> usize;
    _Unwind_GetIP(*mut c_void) -> usize;
    _Unwind_GetIPInfo(*mut c_void, *mut c_int) -> usize;
    _Unwind_GetLanguageSpecificData(*mut c_void) -> *mut c_void;
    _Unwind_GetRegionStart(*mut c_void) -> usize;
    _Unwind_GetTextRelBase(*mut c_void) -> usize;
    _Unwind_Resume(*mut c_void) -> !;
    _Unwind_SetGR(*mut c_void, c_int, usize) -> ();
    _Unwind_SetIP(*mut c_void, usize) -> ();
}
