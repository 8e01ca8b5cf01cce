//! The kernel's two ways to write a set of CPUs: lists (`0-3,8`) and hexadecimal masks (`00000001,0000000f`).

/// `0-3,8` -> [0, 1, 2, 3, 8]. Order and repeats are kept as written; empty text is the empty set.
pub fn parse_list(text: &str) -> Option<Vec<usize>> {
    let text = text.trim();
    let mut cpus = Vec::new();
    if text.is_empty() {
        return Some(cpus);
    }
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if first > last || last >= CPU_COUNT_MAX {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus)
}

/// Far beyond the kernel's NR_CPUS; keeps a typing error from filling memory.
const CPU_COUNT_MAX: usize = 1 << 16;

/// [0, 1, 2, 3, 8] -> `0-3,8`.
pub fn list(cpus: &[usize]) -> String {
    let mut sorted = cpus.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    let mut parts: Vec<String> = Vec::new();
    let mut rest = sorted.as_slice();
    while let [first, ..] = rest {
        let run = rest.iter().enumerate().take_while(|(i, cpu)| **cpu == first + i).count();
        let last = first + run - 1;
        parts.push(if run == 1 { first.to_string() } else { format!("{first}-{last}") });
        rest = rest.get(run..).unwrap_or_default();
    }
    parts.join(",")
}

/// The mask as the kernel takes it: groups of 32 bits, highest first.
pub fn mask(cpus: &[usize]) -> String {
    let groups = cpus.iter().max().map_or(1, |highest| highest / 32 + 1);
    let mut words = vec![0u32; groups];
    for cpu in cpus {
        if let Some(word) = words.get_mut(cpu / 32) {
            *word |= 1 << (cpu % 32);
        }
    }
    let mut text: Vec<String> = words.iter().rev().map(|word| format!("{word:08x}")).collect();
    if let Some(first) = text.first_mut() {
        let short = first.trim_start_matches('0');
        *first = if short.is_empty() { "0".to_string() } else { short.to_string() };
    }
    text.join(",")
}

/// One spelling per mask, so that `00000000,0000000f` and `f` compare equal. None when it is not a mask.
pub fn canonical_mask(text: &str) -> Option<String> {
    let mut digits = String::new();
    for group in text.trim().split(',') {
        if group.is_empty() || group.len() > 8 || !group.chars().all(|c| c.is_ascii_hexdigit()) {
            return None;
        }
        digits.push_str(&format!("{group:0>8}").to_ascii_lowercase());
    }
    let short = digits.trim_start_matches('0');
    Some(if short.is_empty() { "0".to_string() } else { short.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_round_trip() {
        assert_eq!(parse_list("0-3,8\n"), Some(vec![0, 1, 2, 3, 8]));
        assert_eq!(list(&[8, 0, 1, 3, 2]), "0-3,8");
        assert_eq!(parse_list(""), Some(vec![]));
        for odd in ["x", "3-1", "1-", "0-99999999999", "0-9999999"] {
            assert_eq!(parse_list(odd), None, "{odd}");
        }
    }

    #[test]
    fn masks_have_one_spelling() {
        assert_eq!(mask(&[0, 1, 2, 3]), "f");
        assert_eq!(mask(&[0, 33]), "2,00000001");
        assert_eq!(canonical_mask("00000000,0000000F\n"), Some("f".into()));
        assert_eq!(canonical_mask(&mask(&[0, 33])), Some("200000001".into()));
        assert_eq!(canonical_mask("zz"), None);
        assert_eq!(mask(&[]), "0");
    }
}
