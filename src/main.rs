fn main() -> std::process::ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.split_first() {
        Some((command, rest)) if command == "lab" => rstdoctor::lab::main(rest),
        _ => std::process::ExitCode::from(2),
    }
}
