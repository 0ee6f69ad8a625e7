// What the server sends once a second, and whether it does.
import { useState, useEffect, useRef } from "../html.js";

/**
 * `{state: connecting|open|lost, lag: the newest snapshot, opened: how often it was connected}`.
 * The browser reconnects by itself. While paused the figures stay as they are.
 */
export function useStream(isPaused) {
  const [stream, setStream] = useState({ state: "connecting", lag: null, opened: 0 });
  const paused = useRef(isPaused);
  paused.current = isPaused;
  useEffect(() => {
    let source, retry;
    const take = (event) => {
      const lag = JSON.parse(event.data);
      setStream((old) => (paused.current && old.lag ? (old.state === "open" ? old : { ...old, state: "open" }) : { ...old, state: "open", lag }));
    };
    const open = () => {
      source = new EventSource("/api/v1/stream");
      source.onopen = () => setStream((old) => ({ ...old, state: "open", opened: old.opened + 1 }));
      source.addEventListener("snapshot", take);
      source.onerror = () => {
        setStream((old) => ({ ...old, state: "lost" }));
        // A closed source (an error page in the place of the stream) never comes back by itself.
        if (source.readyState === EventSource.CLOSED) retry = setTimeout(open, 1000);
      };
    };
    open();
    return () => { clearTimeout(retry); source.close(); };
  }, []);
  return stream;
}
