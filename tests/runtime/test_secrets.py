"""The master secret: where it comes from, what is derived from it, and that it stays hidden."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from runtime.config import ConfigError
from runtime.sealing import Undecipherable
from runtime.secrets import Purpose, Secrets
from runtime.settings import AuthSettings

MASTER = b"a master secret of more than 32 bytes"
SECRETS = Secrets(MASTER)


def load(
    secret: str = "",
    secret_file: str = "",
    environ: dict[str, str] | None = None,
    data_dir: Path | None = None,
) -> Secrets:
    return Secrets.load(
        AuthSettings(secret=secret, secret_file=secret_file), environ=environ or {}, data_dir=data_dir
    )


def same(one: Secrets, other: Secrets) -> bool:
    return one.sign(Purpose.TICKET, b"x") == other.sign(Purpose.TICKET, b"x")


@given(st.sampled_from(Purpose), st.binary())
def test_a_signature_is_that_of_its_message_and_purpose_alone(purpose: Purpose, message: bytes) -> None:
    signature = SECRETS.sign(purpose, message)
    assert len(signature) == 32
    assert SECRETS.verify(purpose, message, signature)
    assert not SECRETS.verify(purpose, message + b"\0", signature)
    assert not SECRETS.verify(purpose, message, signature[:-1])
    assert not SECRETS.verify(purpose, message, b"")
    assert not any(SECRETS.verify(other, message, signature) for other in Purpose if other is not purpose)


def test_derived_keys_never_change() -> None:
    """Whoever changes them makes every stored hash and ciphertext worthless."""
    assert (
        SECRETS.sign(Purpose.TICKET, b"x").hex()
        == "4e8a1384a97ccb2f0bacd693558a77c65ee8ec83ebaf71a468f32cf278c5004c"
    )
    assert (
        SECRETS.keyed_hash(Purpose.EMAIL, "x")
        == "4048549b1facc612317e3540f3bb40626e4505db813892827c4cd4689a2ff9ee"
    )
    assert (
        SECRETS.encryption.decrypt("v1.b005ba8c.1HdVzZ71qM1Tm_VG30vdN9cHJrbHKnlv3fQCI5ugeC1fl0Hdsg", "user-1")
        == "가나다"
    )


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_keyed_hash_is_64_hex_digits_and_no_signature(text: str) -> None:
    hashed = SECRETS.keyed_hash(Purpose.EMAIL, text)
    assert len(bytes.fromhex(hashed)) == 32
    assert hashed == SECRETS.keyed_hash(Purpose.EMAIL, text)
    assert hashed != SECRETS.keyed_hash(Purpose.TICKET, text)
    assert hashed != SECRETS.sign(Purpose.EMAIL, text.encode()).hex()


@given(st.text(st.characters(exclude_categories=["Cs"])), st.text(st.characters(exclude_categories=["Cs"])))
def test_decrypt_undoes_encrypt_in_the_same_context(plaintext: str, context: str) -> None:
    ciphertext = SECRETS.encryption.encrypt(plaintext, context)
    assert SECRETS.encryption.decrypt(ciphertext, context) == plaintext
    with pytest.raises(Undecipherable):
        SECRETS.encryption.decrypt(ciphertext, context + "x")


def test_equal_texts_have_different_ciphertexts() -> None:
    assert SECRETS.encryption.encrypt("a@b.c", "1") != SECRETS.encryption.encrypt("a@b.c", "1")


def test_a_ciphertext_names_the_key_that_made_it() -> None:
    other = Secrets(MASTER[::-1])
    with pytest.raises(Undecipherable, match="another master secret"):
        other.encryption.decrypt(SECRETS.encryption.encrypt("a@b.c", "1"), "1")


def test_a_key_s_id_tells_whose_it_is_and_not_what_it_is() -> None:
    encryption, same, other = (Secrets(one).encryption for one in (MASTER, MASTER, MASTER[::-1]))
    ids = {encryption.new_id() for _ in range(50)}
    assert len(ids) == 50
    for key_id in (*ids, encryption.first_id):
        assert same.is_ours(key_id)
        assert not other.is_ours(key_id)
    for key_id in ("", "x", "가", "0" * 16, encryption.first_id * 2, ids.pop()[:-1]):
        assert not encryption.is_ours(key_id)
        with pytest.raises(Undecipherable, match="another master secret"):
            encryption.use(key_id)
    assert encryption.current_id == encryption.first_id


def test_each_key_makes_its_own_ciphertexts_and_all_are_read() -> None:
    writer, reader = Secrets(MASTER).encryption, Secrets(MASTER).encryption
    made = []
    for key_id in (writer.first_id, writer.new_id(), writer.new_id()):
        writer.use(key_id)
        made.append(writer.encrypt("a@b.c", "1"))
        assert made[-1].startswith(f"v1.{key_id}.")
    assert [reader.decrypt(each, "1") for each in made] == ["a@b.c"] * 3
    swapped = made[1].replace(made[1].split(".")[1], made[2].split(".")[1])
    with pytest.raises(Undecipherable, match="damaged"):
        reader.decrypt(swapped, "1")


@given(st.data())
def test_a_changed_ciphertext_is_undecipherable(data: st.DataObject) -> None:
    ciphertext = SECRETS.encryption.encrypt("a@b.c", "1")
    start = ciphertext.rindex(".") + 1
    # The last digit carries bits that base64 throws away.
    at = data.draw(st.integers(start, len(ciphertext) - 2))
    digit = data.draw(st.sampled_from("Ab0-_!é\n"))
    if (
        digit == ciphertext[at]
    ):  # not by a filter: each ciphertext is another, and draws must not depend on it
        digit = "z"
    with pytest.raises(Undecipherable):
        SECRETS.encryption.decrypt(ciphertext[:at] + digit + ciphertext[at + 1 :], "1")


@given(st.text())
def test_any_text_is_refused_in_words(text: str) -> None:
    with pytest.raises(Undecipherable):
        SECRETS.encryption.decrypt(text, "1")
    with pytest.raises(Undecipherable):
        SECRETS.encryption.decrypt(SECRETS.encryption.encrypt("", "1").rpartition(".")[0] + "." + text, "1")


def test_no_secret_is_shown() -> None:
    assert repr(SECRETS) == str(SECRETS) == "<Secrets>"
    assert not hasattr(SECRETS, "__dict__")


def test_sources_come_in_order(tmp_path: Path) -> None:
    file, credentials, data_dir = tmp_path / "file", tmp_path / "credentials", tmp_path / "data"
    file.write_text("from a file" * 3 + "\n")
    credentials.mkdir()
    (credentials / "lobbyd_secret").write_text("credential" * 4)
    environ = {"CREDENTIALS_DIRECTORY": str(credentials)}
    assert same(load("a setting" * 4, str(file), environ, data_dir), Secrets(b"a setting" * 4))
    assert same(load("", str(file), environ, data_dir), Secrets(b"from a file" * 3))
    assert same(load("", "", environ, data_dir), Secrets(b"credential" * 4))
    assert not data_dir.exists()


def test_a_missing_systemd_credential_is_no_source(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no master secret"):
        load(environ={"CREDENTIALS_DIRECTORY": str(tmp_path)})


def test_the_data_directory_gets_a_secret_that_stays(tmp_path: Path) -> None:
    data_dir = tmp_path / "deep" / "data"
    first = load(data_dir=data_dir)
    assert same(first, load(data_dir=data_dir))
    assert [path.name for path in data_dir.iterdir()] == ["secret.key"]
    assert stat.S_IMODE((data_dir / "secret.key").stat().st_mode) == 0o600
    assert not same(first, load(data_dir=tmp_path / "other"))


@pytest.mark.servers
def test_processes_that_start_at_once_agree_on_one_secret(tmp_path: Path) -> None:
    program = """if True:
        import sys
        from pathlib import Path
        from runtime.secrets import Purpose, Secrets
        from runtime.settings import AuthSettings
        secrets = Secrets.load(AuthSettings(), environ={}, data_dir=Path(sys.argv[1]))
        print(secrets.sign(Purpose.TICKET, b"x").hex())
    """
    command = [sys.executable, "-c", program, str(tmp_path)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(6)]
    signatures = {process.communicate()[0] for process in processes}
    assert {process.returncode for process in processes} == {0}
    assert len(signatures) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["secret.key"]


def test_without_any_secret_the_error_says_what_to_do() -> None:
    with pytest.raises(ConfigError, match=r"openssl rand -base64 48.*LOBBYD_AUTH__SECRET.*auth\.secret_file"):
        load()


def test_a_short_secret_is_refused_without_showing_it(tmp_path: Path) -> None:
    (tmp_path / "short").write_text("hunter2" + " " * 40)
    for secret, secret_file in (("hunter2", ""), ("", str(tmp_path / "short"))):
        with pytest.raises(ConfigError, match="expected at least 32 characters, got 7") as caught:
            load(secret, secret_file)
        assert "hunter2" not in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="at least 32 bytes"):
        Secrets(b"hunter2")


@pytest.mark.parametrize("secret", ["x" * 40, "changeme"[:7] * 6, "0123456" * 10])
def test_a_secret_that_nobody_drew_is_refused(secret: str) -> None:
    with pytest.raises(ConfigError, match="expected a random secret") as caught:
        load(secret)
    assert secret not in str(caught.value)


def test_a_secret_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"auth\.secret_file: .*/none: cannot be read: No such file"):
        load(secret_file=str(tmp_path / "none"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_data_directory_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(ConfigError, match="cannot be made"):
        load(data_dir=tmp_path)


def test_a_data_directory_that_is_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    with pytest.raises(ConfigError, match="cannot be made"):
        load(data_dir=tmp_path / "data")
