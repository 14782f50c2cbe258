//! What a person has to have for something that was refused.

/// This capability, named so that it helps: root of a user namespace has it there only, and gains nothing by it.
pub fn capability(name: &str) -> String {
    match is_user_namespace() {
        true => format!("{name} on the host: this is a user namespace, and its root is an ordinary user there"),
        false => format!("root or {name}"),
    }
}

/// Whether this process lives in a user namespace other than the first, which maps every number to itself.
fn is_user_namespace() -> bool {
    std::fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| !is_first(&map))
}

fn is_first(uid_map: &str) -> bool {
    uid_map.split_ascii_whitespace().eq(["0", "0", "4294967295"])
}

#[cfg(test)]
mod tests {
    use super::is_first;

    #[test]
    fn the_first_user_namespace_maps_all_numbers_to_themselves() {
        assert!(is_first("         0          0 4294967295\n"));
        assert!(!is_first("         0       1000          1\n"));
        assert!(!is_first("         0          0      65536\n"));
    }
}
