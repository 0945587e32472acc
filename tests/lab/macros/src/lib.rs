//! The attribute `#[test]` of the lab's own runner, which knows tests that could not run.

use proc_macro::{TokenStream, TokenTree};

/// Makes a function one of the tests that `ringtap_lab::test_binary!` runs.
///
/// A test that calls `ringtap_lab::skip` is listed as ignored, with the reason. `#[test(should_panic = "text")]` is for one
/// that must panic with a message that has this text.
#[proc_macro_attribute]
pub fn test(arguments: TokenStream, function: TokenStream) -> TokenStream {
    let name = name_of(&function).expect("a test is a function");
    let panic = match arguments.into_iter().nth(2) {
        Some(text) => format!("::std::option::Option::Some({text})"),
        None => "::std::option::Option::None".to_owned(),
    };
    let submission = format!(
        "const _: () = {{ ::ringtap_lab::runner::submit! {{ ::ringtap_lab::runner::Test {{
            module: ::std::module_path!(), name: ::std::stringify!({name}), run: {name}, panic: {panic},
        }} }} }};"
    );
    let submission: TokenStream = submission.parse().expect("it is written above");
    function.into_iter().chain(submission).collect()
}

/// What stands behind `fn`.
fn name_of(function: &TokenStream) -> Option<String> {
    let mut tokens = function.clone().into_iter();
    tokens.find(|token| matches!(token, TokenTree::Ident(word) if word.to_string() == "fn"))?;
    tokens.next().map(|name| name.to_string())
}
