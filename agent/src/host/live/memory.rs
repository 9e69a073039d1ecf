//! Gives memory back, so that a look's peak is not what the agent holds at rest.
#![allow(unsafe_code)]

use std::{ops::Range, path::Path};

/// Returns memory that is no longer used to the system: what the allocator holds free, and the pages of the program's own code.
///
/// An agent at rest runs a small part of its code, while a look, a handshake or a renewal runs another once. The pages stay in the
/// system's page cache; those that run again come back by minor faults, some hundred in a minute.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim(3) takes a number, touches only free memory and is MT-safe.
    unsafe {
        libc::malloc_trim(0);
    }
    // Without either file the code just stays.
    let Ok(program) = std::fs::read_link("/proc/self/exe") else { return };
    let Ok(maps) = std::fs::read_to_string("/proc/self/maps") else { return };
    for range in code_of(&maps, &program) {
        // SAFETY: the range is a private mapping of a file that is neither writable nor was ever written: nothing but the dynamic
        // linker could, and it relocates no executable segment. After MADV_DONTNEED the next access reads the same bytes from the
        // file (madvise(2)). Whether it works changes nothing else.
        unsafe {
            libc::madvise(range.start as *mut libc::c_void, range.len(), libc::MADV_DONTNEED);
        }
    }
}

/// Returns the executable mappings of `program` in the text of `/proc/PID/maps` (proc_pid_maps(5)).
fn code_of(maps: &str, program: &Path) -> Vec<Range<usize>> {
    let code = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        let (range, mode) = (fields.next()?, fields.next()?);
        let path = line.find('/').map(|start| Path::new(&line[start..]))?;
        let (start, end) = range.split_once('-')?;
        let address = |text| usize::from_str_radix(text, 16).ok();
        (mode == "r-xp" && path == program).then_some(address(start)?..address(end)?)
    };
    maps.lines().filter_map(code).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_of_the_program_itself_is_let_go() {
        let maps = "\
5581000-5582000 r--p 00000000 fe:01 1234   /usr/bin/muster agent
5582000-5584000 r-xp 00001000 fe:01 1234   /usr/bin/muster agent
5584000-5585000 r--p 00003000 fe:01 1234   /usr/bin/muster agent
5585000-5586000 rwxp 00004000 fe:01 1234   /usr/bin/muster agent
7f00000-7f01000 r-xp 00000000 fe:01 99     /usr/lib/libc.so.6
7f02000-7f03000 r-xp 00000000 00:00 0      [vdso]
7f04000-7f05000 rw-p 00000000 00:00 0
";
        let code = code_of(maps, Path::new("/usr/bin/muster agent"));
        assert_eq!((code.len(), code[0].clone()), (1, 0x558_2000..0x558_4000));
        assert!(code_of(maps, Path::new("/usr/bin/other")).is_empty());
    }

    #[test]
    fn a_program_that_gives_its_code_back_goes_on() {
        let program = std::fs::read_link("/proc/self/exe").unwrap();
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        assert!(!code_of(&maps, &program).is_empty());
        for number in 0..3 {
            give_back();
            assert_eq!(format!("{number}").parse(), Ok(number));
        }
    }
}
