// The panels' contents: Grafana's own components where @grafana/ui has them; `drawn.jsx` has the other two.
import { dateTime, FieldType, getDisplayValueAlignmentFactors, getFieldDisplayName, getFieldDisplayValues } from '@grafana/data';
import { BarGauge, BigValue, TimeSeries } from '@grafana/ui';
import { TableNG } from '@grafana/ui/unstable';

import { Heatmap, StateTimeline } from './drawn';

export function Visualization(props) {
  const { panel, frames } = props;
  if (frames.every((frame) => frame.length === 0) && panel.type !== 'stat') {
    return <NoData {...props} />;
  }
  switch (panel.type) {
    case 'timeseries':
      return <Lines {...props} />;
    case 'stat':
      return <Numbers {...props} />;
    case 'bargauge':
      return <Bars {...props} />;
    case 'table':
      return <Cells {...props} />;
    case 'heatmap':
      return <Heatmap {...props} />;
    case 'state-timeline':
      return <StateTimeline {...props} />;
    default:
      return <span>{panel.type} is not known</span>;
  }
}

function NoData({ panel, theme, height }) {
  const style = { height, display: 'grid', placeItems: 'center', color: theme.colors.text.secondary };
  return <div style={style}>{panel.fieldConfig.defaults.noValue ?? 'No data'}</div>;
}

function Lines({ panel, frames, width, height, board }) {
  const timeRange = { from: dateTime(board.from), to: dateTime(board.to), raw: { from: 'now-1h', to: 'now' } };
  return (
    <TimeSeries
      {...{ frames, width, height, timeRange, timeZone: 'utc', legend: panel.options.legend, options: panel.options }}
    />
  );
}

function displayed({ panel, frames, theme }) {
  return getFieldDisplayValues({
    fieldConfig: panel.fieldConfig,
    reduceOptions: panel.options.reduceOptions,
    data: frames,
    replaceVariables: (text) => text,
    sparkline: panel.options.graphMode === 'area',
    theme,
    timeZone: 'utc',
  });
}

function Numbers(props) {
  const { panel, theme, width, height } = props;
  const { colorMode, graphMode, justifyMode, textMode } = panel.options;
  return displayed(props).map(({ display, sparkline }, index) => (
    <BigValue
      key={index}
      {...{ value: display, sparkline, width, height, theme, colorMode, graphMode, justifyMode, textMode }}
    />
  ));
}

function Bars(props) {
  const { panel, theme, width, height } = props;
  const values = displayed(props);
  const factors = getDisplayValueAlignmentFactors(values);
  const gap = 8;
  const bar = Math.min(panel.options.maxVizHeight, Math.floor(height / values.length) - gap);
  return values.map(({ display, field, view, colIndex }, index) => (
    <div key={index} style={{ marginBottom: gap }}>
      <BarGauge
        {...{ value: display, field, theme, width, height: bar, alignmentFactors: factors }}
        display={view?.getFieldDisplayProcessor(colIndex)}
        orientation={panel.options.orientation}
        displayMode={panel.options.displayMode}
        valueDisplayMode={panel.options.valueMode}
        namePlacement={panel.options.namePlacement}
        showUnfilled={panel.options.showUnfilled}
        itemSpacing={gap}
        lcdCellWidth={8}
      />
    </div>
  ));
}

function Cells({ panel, frames, theme, width, height }) {
  const [frame] = frames;
  const shown = { ...frame, fields: frame.fields.filter((field) => field.config.custom?.hidden !== true) };
  for (const field of shown.fields) {
    field.state = { ...field.state, displayName: getFieldDisplayName(field, frame, frames), calcs: undefined };
    field.getLinks ??= () => [];
    if (field.type === FieldType.other) {
      field.type = FieldType.string;
    }
  }
  return (
    <TableNG
      data={shown}
      {...{ width, height, theme }}
      sortBy={panel.options.sortBy}
      cellHeight={panel.options.cellHeight}
      noHeader={!panel.options.showHeader}
      fieldConfig={panel.fieldConfig}
      getActions={() => []}
      replaceVariables={(text) => text}
      structureRev={1}
    />
  );
}
