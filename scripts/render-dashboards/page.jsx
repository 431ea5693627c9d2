// A dashboard: heading, variables, and panels in their places.
import 'uplot/dist/uPlot.min.css';

import { createTheme, EventBusSrv, ThemeContext } from '@grafana/data';
import { GlobalStyles, PanelChrome, PanelContextProvider } from '@grafana/ui';
import { useEffect, useState } from 'react';
import { createRoot } from 'react-dom/client';

import { framesOf } from './frames';
import { Visualization } from './visualizations';

const board = window.DASHBOARD;
const theme = createTheme({ colors: { mode: 'dark' } });
const events = new EventBusSrv();

// "A few seconds ago" is counted from the end of the time range.
const behind = Date.now() - board.to;
const wallClock = Date.now.bind(Date);
Date.now = () => wallClock() - behind;

function Panel({ panel }) {
  const [frames, setFrames] = useState();
  useEffect(() => {
    framesOf(panel, theme).then(setFrames, (error) => console.error(panel.title, error));
  }, [panel]);
  const { x, y, w, h } = panel.gridPos;
  const column = (board.width - 16) / 24;
  const place = { position: 'absolute', left: 8 + x * column, top: y * board.cell };
  const width = w * column - 8;
  const height = h * board.cell - 8;
  if (panel.type === 'row') {
    return (
      <div style={{ ...place, fontSize: 16, fontWeight: 500, lineHeight: '30px', color: theme.colors.text.primary }}>
        ⌄ {panel.title}
      </div>
    );
  }
  return (
    <div style={{ ...place, width, height }}>
      <PanelChrome width={width} height={height} title={panel.title} description={panel.description}>
        {(innerWidth, innerHeight) =>
          frames && <Visualization {...{ panel, frames, theme, width: innerWidth, height: innerHeight, board }} />
        }
      </PanelChrome>
    </div>
  );
}

function Heading() {
  const pill = { border: `1px solid ${theme.colors.border.medium}`, borderRadius: 2, padding: '4px 8px', marginRight: 8 };
  const when = (time) => new Date(time).toISOString().slice(0, 16).replace('T', ' ');
  return (
    <div style={{ height: board.top, padding: '12px 16px', boxSizing: 'border-box' }}>
      <div style={{ display: 'flex', justifyContent: 'space-between' }}>
        <h1 style={{ fontSize: 24, margin: 0 }}>{board.title}</h1>
        <span style={{ color: theme.colors.text.secondary }}>
          rendered with Grafana&apos;s UI components · {when(board.from)} to {when(board.to)} UTC
        </span>
      </div>
      <div style={{ display: 'flex', justifyContent: 'space-between', marginTop: 14 }}>
        <span>
          {board.variables.map(({ label, text }) => (
            <span key={label} style={pill}>
              <span style={{ color: theme.colors.text.secondary }}>{label}</span> {text}
            </span>
          ))}
        </span>
        <span>
          {board.links.map((title) => (
            <span key={title} style={pill}>
              {title}
            </span>
          ))}
        </span>
      </div>
    </div>
  );
}

createRoot(document.getElementById('root')).render(
  <ThemeContext.Provider value={theme}>
    <GlobalStyles />
    <PanelContextProvider value={{ eventsScope: 'render', eventBus: events, app: 'dashboard' }}>
      <div style={{ background: theme.colors.background.canvas, height: board.height }}>
        <Heading />
        <div style={{ position: 'relative' }}>
          {board.panels.map((panel) => (
            <Panel key={panel.id} panel={panel} />
          ))}
        </div>
      </div>
    </PanelContextProvider>
  </ThemeContext.Provider>
);
