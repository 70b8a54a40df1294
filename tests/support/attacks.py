"""Lists attacks, what happens, and the test that shows it: the table of docs/security.md.

`python tests/support/attacks.py` writes the table into the page.
"""

from pathlib import Path

from pages import page_with

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/security.md"
BEGIN = "<!-- table of attacks: python tests/support/attacks.py -->\n"

_MANNERS, _CACHE = "tests/plugins/test_plugin_manners.py", "tests/plugins/test_code_cache.py"
_HARD = "tests/checkpoints/test_hard_headers.py"
_PATHS, _CLI, _TALK = ("tests/checkpoints/test_odd_paths.py", "tests/cli/test_manners.py",
                       "tests/serving/test_conversation.py")
_PLACE, _NUMBA = "tests/checkpoints/test_placing.py", "tests/backends/test_numba_cache.py"
_TEMPLATES, _ODD = "tests/tokenizers/test_chat_templates.py", "tests/engine/test_odd_arguments.py"
_STREAMS = "tests/cli/test_streams.py"
_REQUESTS = "tests/serving/test_odd_requests.py"
_FORMS = "tests/serving/http/test_structured_http.py"
_FACE, _PYTEST = "tests/house/test_public_face.py", "tests/conformance/test_pytest_plugin.py"

ATTACKS = {  # kind: (attack, what happens, file, test)
    "Folders that hold more than a model": [
        ("a `*.dist-info` with an entry point in the current folder", "named, not loaded", _MANNERS,
         "test_a_plugin_in_the_current_folder_is_named_and_not_loaded"),
        ("the same in the folder of the model", "an error", _MANNERS,
         "test_a_plugin_in_the_folder_of_the_model_is_an_error"),
        ("a plugin that ends Python, raises, or hangs in a late hook", "listed as broken", _MANNERS,
         "test_doctor_and_the_list_survive_everything"),
        ("a plugin whose import never ends", "ended after 10 s, listed as broken", _MANNERS,
         "test_an_endless_import_is_ended"),
        ("a plugin that prints without end", "ended after 64 MiB, listed as broken", _MANNERS,
         "test_endless_output_is_bounded"),
        ("`core`, `models` of another project first on the path", "one line, exit code 2", _FACE,
         "test_a_shadowed_package_is_one_line"),
        ("`kernelyard.py` in the current folder", "one line, exit code 2", _FACE,
         "test_a_shadowed_kernelyard_is_one_line"),
        ("our pytest plugin in another project", "not loaded unless asked for", _PYTEST,
         "test_another_project_starts_as_without_us")],
    "Numbers before memory": [
        ("any size of config.json up to 10³⁰", "refused within 64 MiB", _HARD,
         "test_a_number_takes_no_memory"),
        ("sizes without bound, 65 dimensions, 4,300 digits, nesting, names twice, bytes after the "
         "last tensor, holes in safetensors", "refused", _HARD, "test_safetensors_to_the_letter"),
        ("JSON that is nested, endless, not UTF-8, or has a key twice", "refused", _HARD,
         "test_json_of_any_kind"),
        ("GGUF arrays that nobody reads", "skipped without memory", _HARD,
         "test_gguf_arrays_that_nobody_reads_take_no_memory"),
        ("scales that are not finite", "refused", _HARD, "test_scales_of_our_folders_are_finite"),
        ("headers of every format with bytes changed", "our error, or read",
         "tests/checkpoints/test_corrupt.py", "test_mutated_headers"),
        ("300 damaged files for each of 20 readers", "our error, or read, in 5 s and 700 MB",
         "tests/checkpoints/test_fuzz.py", "test_only_our_errors")],
    "Archives": [
        ("compressed members in a `.pth`", "refused", "tests/checkpoints/test_torch_files.py",
         "test_compressed_members"),
        ("a stride of zero in a `.pth`", "refused", "tests/checkpoints/test_torch_files.py",
         "test_a_stride_of_zero"),
        ("headers of `.npz` capsules", "our error", "tests/verify/test_verify.py",
         "test_damaged_capsules_are_clear_errors")],
    "Files that are none": [
        ("FIFOs and devices in a model folder", "refused, without waiting", _PATHS,
         "test_only_regular_files_of_a_model"),
        ("the same as `--model`, `--lock`, `--replay`, requests and results of a batch", "refused, "
         "without waiting", _PATHS,
         "test_only_regular_files_by_name"),
        ("a FIFO that nobody reads as a file to write", "refused, without waiting",
         "tests/test_files.py", "test_a_fifo_that_nobody_reads_is_not_waited_for"),
        ("a NUL in the name that an option gives", "refused, nothing written", _PATHS,
         "test_every_option_refuses_a_name_with_a_nul"),
        ("an index that never ends", "refused after 16 MiB", _PATHS,
         "test_an_index_that_never_ends"),
        ("a silent pipe on standard input", "named after a second", _CLI,
         "test_an_open_pipe_is_named_after_a_second"),
        ("endless standard input", "refused after 64 Mi characters", _CLI,
         "test_standard_input_is_bounded"),
        ("an endless message in a chat", "refused, the chat goes on", _CLI,
         "test_a_message_is_bounded")],
    "Caches of machine code": [
        ("an entry that is empty, truncated, or has a flipped bit", "compiled again", _CACHE,
         "test_a_damaged_entry_is_compiled_again"),
        ("the same for `cpu_numba`'s pickles", "compiled again", _NUMBA,
         "test_a_damaged_entry_is_compiled_again"),
        ("a pickle of somebody else", "not read", _NUMBA,
         "test_a_pickle_of_somebody_else_is_not_read"),
        ("a folder in which others may write", "not used", _CACHE,
         "test_a_folder_in_which_others_may_write_is_not_used"),
        ("a folder of another user", "not used", _CACHE,
         "test_a_folder_of_another_user_is_not_used"),
        ("no home, a full disk", "compiled, not kept", _CACHE, "test_a_full_disk"),
        ("a user without home", "compiled, not kept", _NUMBA, "test_without_a_home")],
    "Chat templates and conversations": [
        ("endless loops, recursion, gigabytes of text", "an error after 5 s, 512 MiB or 16 million "
         "characters", _TEMPLATES, "test_hostile_templates_end"),
        ("Python's insides", "an error", _TEMPLATES, "test_refusals"),
        ("control tokens in a message", "ordinary text", _TALK,
         "test_a_message_writes_no_control_token"),
        ("control tokens in tools and documents", "ordinary text", _TALK,
         "test_tools_and_documents_write_no_control_token"),
        ("the same where the template changes the text", "the message is refused", _TALK,
         "test_a_template_that_changes_the_text"),
        ("a message that no context holds, or is no UTF-8", "an error, the chat goes on", _CLI,
         "test_one_bad_message_does_not_end_a_chat")],
    "Requests over HTTP": [
        ("a path, a header, headers, trailers or extensions of chunks without end",
         "the connection ends after 64 KiB", "tests/serving/http/test_odd_http.py",
         "test_what_is_beside_a_body_is_bounded")],
    "Forms of texts": [
        ("schemas, expressions and grammars that nest 10,000 deep, have 50,000 choices, or need "
         "minutes", "refused within 2 s and 1 GiB, the engine goes on", _FORMS,
         "test_hostile_forms_are_refused"),
        ("a form that comes to its limits while a text is made", "its request ends",
         "tests/serving/test_structured_engine.py",
         "test_a_limit_of_the_grammar_ends_its_request_alone")],
    "Arguments": [
        ("numbers of other types and sizes", "our error", _ODD, "test_a_number"),
        ("NumPy's numbers", "are numbers", _ODD, "test_numpys_numbers_are_numbers"),
        ("`stop=None`, odd stop texts", "our error", _ODD, "test_a_stop_text"),
        ("odd prompts", "our error", _ODD, "test_a_prompt"),
        ("load options of other types", "our error", _ODD, "test_a_load_option_of_another_type"),
        ("fields of `SamplingParams`, and what they hold, of other types and sizes", "our error",
         _REQUESTS, "test_a_field_of_the_parameters"),
        ("odd requests to an engine", "our error, the engine goes on", _REQUESTS,
         "test_a_request"),
        ("odd lists of prompts", "our error, the engine goes on", _REQUESTS,
         "test_a_list_of_prompts"),
        ("2⁶³ sequences or texts of one prompt", "refused, without memory", _REQUESTS,
         "test_sequences_are_bounded"),
        ("a registry, options or `progress` of other types", "our error", _REQUESTS,
         "test_an_object_of_another_type"),
        ("arguments of `run_op`, sessions, tensors, allocators: other types, integers of 5,000 "
         "digits, lists that hold themselves, objects whose repr fails", "our error",
         "tests/runtime/test_odd_calls.py", "test_run_op"),
        ("a panic of the tokenizers library", "our error", "tests/tokenizers/test_library.py",
         "test_a_panic_is_an_error"),
        ("texts and ids of other types in a tokenizer", "our error",
         "tests/tokenizers/test_library.py", "test_odd_texts_and_ids"),
        ("odd samplings of a session, odd receivers of pieces", "our error",
         "tests/runtime/test_odd_calls.py", "test_how_a_session_samples")],
    "Terminals": [
        ("control characters in names and in what plugins say", "escaped", _CLI,
         "test_control_characters_are_shown"),
        ("messages of any length", "a screen at most", _CLI, "test_messages_fit_on_a_screen"),
        ("closed standard output or error", "exit code 2, one line", _CLI, "test_closed_streams"),
        ("standard error that is full, closed, opened for reading, or left", "the same result",
         _STREAMS, "test_a_message_that_is_lost_changes_nothing"),
        ("a number of a closed stream", "no file gets it", _STREAMS,
         "test_no_file_gets_the_number_of_a_closed_stream"),
        ("a chat with closed standard input", "it ends, exit code 0", _STREAMS,
         "test_a_chat_without_an_input"),
        ("a full disk", "exit code 2, the file named", "tests/test_files.py",
         "test_a_full_disk_names_the_file"),
        ("a reader that has gone (`| head`)", "exit code 0", "tests/cli/test_run.py",
         "test_a_closed_pipe_is_no_error")],
    "Threads and processes": [
        ("2, 3 and 8 threads on one model", "the results of one thread",
         "tests/engine/test_threads.py", "test_calls_from_threads_give_what_they_give_alone"),
        ("`close()` in another thread", "our error", "tests/engine/test_threads.py",
         "test_closing_from_another_thread_is_our_error"),
        ("`fork` after `cpu_numba` ran", "an error in the child that names `spawn`",
         "tests/backends/test_fork.py", "test_a_forked_child"),
        ("`fork` after a CUDA backend ran", "the same error, from every use; the child ends in "
         "order", "tests/backends/test_cuda_pycuda_threads.py",
         "test_a_forked_child_names_spawn_and_ends"),
        ("threads that load, use, close and collect models on a GPU", "one at a time, nothing lost",
         "tests/backends/test_cuda_pycuda_threads.py",
         "test_threads_load_use_close_and_collect_models"),
        ("NaN, Inf, f16 overflow in logits", "exit code 1, named", "tests/engine/test_nonfinite.py",
         "test_on_the_command_line")],
    "Signals": [
        ("SIGKILL and SIGINT at any moment of load, generate, compile, bench and export, and at "
         "each rename", "nothing half-written; 130", "tests/cli/test_kills.py", "test_kills"),
        ("Ctrl-C while modules are imported, or after the last line", "one line; 130",
         "tests/cli/test_start.py", "test_a_command"),
        ("the same in a program that imports kernelyard", "its own handler",
         "tests/cli/test_start.py", "test_a_library_leaves_the_signal_alone"),
        ("an export killed while it writes", "the next removes what is left", _PLACE,
         "test_what_a_killed_export_left_goes"),
        ("two exports to one target", "the second is refused", _PLACE,
         "test_a_second_export_is_refused"),
        ("a target that is a FIFO, a device, a broken link", "refused", _PLACE,
         "test_the_target_is_a_file_or_a_folder"),
        ("a reader while a folder is replaced", "sees the old one or the new one", _PLACE,
         "test_there_always_is_a_whole_folder"),
        ("Ctrl-C in a generation", "its text, exit code 130", "tests/cli/test_run.py",
         "test_interrupted_run_prints_what_it_has")],
    "Releases of libraries": [
        ("floors that admit known holes", "the test fails", "tests/house/test_floors.py",
         "test_no_floor_admits_a_known_hole")],
}


def table():
    """Return the table in Markdown, a row an attack."""
    lines = ["| attack | what happens | test |", "|---|---|---|"]
    for kind, rows in ATTACKS.items():
        lines.append(f"| **{kind}** | | |")
        lines += [f"| {attack} | {happens} | `{Path(file).name}::{test}` |".replace("`| head`",
                                                                                     "`\\| head`")
                  for attack, happens, file, test in rows]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page_with(PAGE.read_text(), BEGIN, table()))
