// Heatmap and state timeline: Grafana keeps these in its server bundle and not in @grafana/ui, so they are drawn here
// from the same options.
import { formattedValueToString, getDisplayProcessor, getValueFormat, dateTimeFormat } from '@grafana/data';
import { VizLegend } from '@grafana/ui';

const AXIS = 22;

// Oranges of d3-scale-chromatic from dark to bright, as Grafana uses them on a dark theme.
const ORANGES = ['#3a1502', '#7f2704', '#b03903', '#d94801', '#f16913', '#fd8d3c', '#fdae6b', '#fdd0a2'];

function TimeAxis({ board, left, width, top, theme }) {
  const count = Math.max(2, Math.floor(width / 110));
  return Array.from({ length: count }, (_, index) => {
    const time = board.from + ((index + 0.5) * (board.to - board.from)) / count;
    const x = left + ((index + 0.5) * width) / count;
    return (
      <text key={index} x={x} y={top + 15} fill={theme.colors.text.primary} fontSize={12} textAnchor="middle">
        {dateTimeFormat(time, { format: 'HH:mm', timeZone: 'utc' })}
      </text>
    );
  });
}

export function Heatmap({ panel, frames, theme, width, height, board }) {
  const bound = (frame) => Number(frame.fields[1].labels.le === '+Inf' ? Infinity : frame.fields[1].labels.le);
  const rows = [...frames].sort((a, b) => bound(a) - bound(b));
  const step = rows[0].fields[0].config.interval;
  const cells = rows.flatMap((frame, row) => {
    const below = row === 0 ? new Map() : new Map(zip(rows[row - 1]));
    return zip(frame).map(([time, value]) => ({ row, time, count: Math.max(0, value - (below.get(time) ?? 0)) }));
  });
  const most = Math.max(...cells.map(({ count }) => count));
  const left = 60;
  const plot = { width: width - left - 8, height: height - AXIS - 18 };
  const band = plot.height / rows.length;
  const unit = getValueFormat(panel.options.yAxis.unit);
  const x = (time) => left + ((time - board.from) / (board.to - board.from)) * plot.width;
  const color = (count) => {
    const share = (count / most) ** panel.options.color.exponent;
    return ORANGES[Math.min(ORANGES.length - 1, Math.floor(share * ORANGES.length))];
  };
  return (
    <svg width={width} height={height}>
      {cells
        .filter(({ count, time }) => count > 0.01 && time > board.from)
        .map(({ row, time, count }) => (
          <rect
            key={`${row} ${time}`}
            x={Math.max(left, x(time - step))}
            width={Math.max(1, x(time) - Math.max(left, x(time - step)) - 1)}
            y={plot.height - (row + 1) * band}
            height={band - 1}
            fill={color(count)}
          />
        ))}
      {rows.map((frame, row) => (
        <text key={row} x={left - 8} y={plot.height - (row + 1) * band + 12} textAnchor="end" fontSize={12} fill={theme.colors.text.primary}>
          {Number.isFinite(bound(frame)) ? formattedValueToString(unit(bound(frame))) : '+Inf'}
        </text>
      ))}
      <TimeAxis {...{ board, left, theme }} width={plot.width} top={plot.height} />
      {ORANGES.map((fill, index) => (
        <rect key={fill} x={width - 168 + index * 20} y={height - 10} width={20} height={8} fill={fill} />
      ))}
      <text x={width - 174} y={height - 2} textAnchor="end" fontSize={11} fill={theme.colors.text.secondary}>
        windows: 0 to {most.toFixed(1)}
      </text>
    </svg>
  );
}

export function StateTimeline({ panel, frames, theme, width, height, board }) {
  const left = 110;
  const legendHeight = 26;
  const plot = { width: width - left - 8, height: height - AXIS - legendHeight - 12 };
  const band = plot.height / frames.length;
  const thickness = band * panel.options.rowHeight;
  const x = (time) => left + Math.max(0, (time - board.from) / (board.to - board.from)) * plot.width;
  const legend = new Map();
  const bands = frames.map((frame, row) => {
    const field = frame.fields[1];
    const display = field.display ?? getDisplayProcessor({ field, theme });
    const step = frame.fields[0].config.interval;
    const states = [];
    for (const [time, value] of zip(frame).filter(([, value]) => value !== null)) {
      const last = states.at(-1);
      if (last && last.value === value && time - last.end <= step * 1.5) {
        last.end = time;
      } else {
        states.push({ value, start: time, end: time });
      }
    }
    return (
      <g key={row}>
        <text x={left - 8} y={row * band + band / 2 + 4} textAnchor="end" fontSize={12} fill={theme.colors.text.primary}>
          {field.config.displayNameFromDS}
        </text>
        {states.map(({ value, start, end }) => {
          const { text, color } = display(value);
          legend.set(text, color);
          const span = Math.max(2, x(Math.min(board.to, end + step)) - x(start));
          return (
            <g key={start}>
              <rect x={x(start)} y={row * band + (band - thickness) / 2} width={span} height={thickness} fill={color} fillOpacity={panel.fieldConfig.defaults.custom.fillOpacity / 100} />
              {span > 60 && (
                <text x={x(start) + 6} y={row * band + band / 2 + 4} fontSize={12} fill={theme.colors.text.maxContrast}>
                  {text}
                </text>
              )}
            </g>
          );
        })}
      </g>
    );
  });
  const items = [...legend].map(([label, color]) => ({ label, color, yAxis: 1 }));
  return (
    <div>
      <svg width={width} height={plot.height + AXIS}>
        {bands}
        <TimeAxis {...{ board, left, theme }} width={plot.width} top={plot.height} />
      </svg>
      <VizLegend items={items} displayMode="list" placement="bottom" />
    </div>
  );
}

function zip(frame) {
  return frame.fields[0].values.map((time, index) => [time, frame.fields[1].values[index]]);
}
